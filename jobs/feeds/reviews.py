"""reviews: what customers wrote about films. CSV. Grain: one row per review.

A review is identified by id_review where it has one, otherwise by customer and text. When one id was delivered with
several texts, the file delivered last decides.
"""

from pyspark.sql import types as T

from jobs.feeds.declaration import Feed, Field, RawFormat
from jobs.quality.rules import Kind, Rule
from jobs.transforms.parsing import free_text, identifier

REVIEWS = Feed(
    name="reviews",
    format=RawFormat.CSV,
    fields=(
        Field(
            "customer_id", T.StringType(), identifier, ("cid", "customer_id"), required=True, max_length=50
        ),
        Field(
            "review", T.StringType(), free_text, ("review_str", "review"), required=True, max_length=100_000
        ),
        Field("review_id", T.StringType(), identifier, ("id_review", "review_id"), max_length=50),
    ),
    key=("review_id",),
    derived={"review_id": "coalesce(review_id, 'content-' || md5(customer_id || '\\n' || review))"},
    prefer=("_delivered_at",),
    rules=(
        Rule(Kind.PATTERN, ("customer_id",), pattern=r"^[0-9]+$"),
        Rule(Kind.VOLUME, tolerance=0.5),
    ),
)
