"""Film reviews, composed from phrases: clearly good, clearly bad, mixed, and hard to judge.

The tone that a text was composed with is known (``Review.tone``), so a sentiment model
can be checked against it. "Hard to judge" are other languages and emoji only.
"""

import csv
import io
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from jobs.samples.model import Customer, SampleFeed, SampleFile, at_least_one, random_for

REVIEWS = 600
TONES = {"positive": 46, "negative": 36, "mixed": 12, "other_language": 5, "emoji_only": 1}
DELIVERED_TWICE = 0.01
EMPTY_REVIEWS = 1

FILMS = (
    "The Lamplighter's Debt",
    "Harbour of Glass",
    "Nine Miles to Ostrava",
    "A Quiet Arithmetic",
    "The Cartographer",
    'Return to "Hotel Meridian"',
    "Salt & Thunder",
    "Léa et les Corbeaux",
    "Midnight Ferry",
    "The Last Orchard",
    "Paper Wolves",
    "Seven Kinds of Rain",
)
OPENINGS = (
    "I saw {film} last night.",
    "My sister made me watch {film}.",
    "{film} came on after the news.",
    "We rented {film} for the weekend.",
    "I had been waiting for {film} since I read the book.",
    "Someone at work kept talking about {film}, so I gave it two hours.",
)
GOOD = (
    "The acting is superb and every scene earns its place.",
    "A wonderful script, funny and moving at once.",
    "I loved the photography; it is simply beautiful.",
    "The lead gives one of the best performances of her career.",
    "It was not boring for a single minute.",
    "You can't go wrong with this one.",
    "The soundtrack is excellent and the ending is perfect.",
    "I have never enjoyed a thriller more.",
    "The director trusts the audience, and it pays off brilliantly.",
    "There isn't a weak moment in it.",
    "An absolute delight from beginning to end.",
    "It stayed with me for days, a truly great film.",
)
BAD = (
    "The acting is wooden and the plot makes no sense.",
    "A dull, lazy script with terrible dialogue.",
    "I was bored after ten minutes and it only got worse.",
    "The effects look cheap and the ending is awful.",
    "It is not funny, not clever and not worth the ticket.",
    "Don't believe the posters: this is a mess.",
    "I didn't care about anybody in it.",
    "The worst two hours that I have spent in a cinema.",
    "Poorly edited, badly lit and painfully slow.",
    "Nothing works here, least of all the jokes.",
    "What a waste of a good cast.",
    "I would not recommend it to anyone.",
)
GOOD_ENDINGS = (
    "Highly recommended!",
    "10 out of 10.",
    "Go and see it.",
    "I will watch it again.",
)
BAD_ENDINGS = ("Avoid.", "2 out of 10.", "I want my money back.", "Stay away from it.")
MIXED_ENDINGS = (
    "So, half a recommendation.",
    "5 out of 10.",
    "See it on a rainy day.",
    "I still don't know.",
)
TURNS = ("But then:", "On the other hand:", "Still,", "And yet.")
OTHER_LANGUAGES = (
    "{film} es una película preciosa, la vería otra vez.",
    "No me gustó nada {film}; demasiado larga.",
    "{film}: ein großartiger Film mit schönen Bildern.",
    "Leider war {film} ziemlich langweilig.",
    "「{film}」はとても面白かったです。",
    "{film}は少し長すぎると思います。",
)
EMOJI = ("👍👍👍", "😡", "🍿🎬❤️", "😴😴", "🤷‍♀️", "⭐⭐⭐⭐⭐", "💤", "🔥🔥", "🙂")
JOINTS = (" ", " ", " ", "<br /><br />", "\n")


@dataclass(frozen=True)
class Review:
    customer_id: int
    text: str
    review_id: int
    tone: str


def make_reviews(seed: int, scale: float, customers: list[Customer]) -> SampleFeed:
    rng = random_for(seed, "reviews:file")
    reviews = compose_reviews(seed, scale, customers)
    rows = [(review.customer_id, review.text, review.review_id) for review in reviews]

    again = rng.sample(rows, at_least_one(len(rows), DELIVERED_TWICE))
    for row in again:
        rows.insert(rng.randint(0, len(rows)), row)
    for number in range(EMPTY_REVIEWS):
        empty = (rng.choice(customers).customer_id, "", len(reviews) + 1 + number)
        rows.insert(rng.randint(0, len(rows)), empty)

    text = io.StringIO(newline="")
    text.write("cid,review_str,id_review\n")
    csv.writer(text, lineterminator="\n").writerows(rows)
    file = SampleFile(
        name="movie-reviews.csv",
        content=text.getvalue().encode(),
        records=len(rows),
        rejected=Counter({"review_text_empty": EMPTY_REVIEWS}),
        duplicates_within=len(again),
    )
    return SampleFeed("reviews", [file], duplicates=len(again), facts=_facts(reviews, customers))


def compose_reviews(seed: int, scale: float, customers: list[Customer]) -> list[Review]:
    """The accepted reviews, no two with the same text. Buyers who buy much write and like more."""
    rng = random_for(seed, "reviews")
    writers = [customer for customer in customers if customer.reviews]
    weights = [writer.activity for writer in writers]
    reviews: list[Review] = []
    texts: set[str] = set()
    while len(reviews) < max(30, round(REVIEWS * scale)):
        writer = rng.choices(writers, weights)[0]
        liking = min(2.0, max(0.6, writer.activity))
        tone = rng.choices(
            list(TONES),
            [share * liking if tone == "positive" else share for tone, share in TONES.items()],
        )[0]
        text = _compose(rng, tone)
        if text in texts:
            continue
        texts.add(text)
        reviews.append(Review(writer.customer_id, text, len(reviews) + 1, tone))
    return reviews


def _compose(rng: random.Random, tone: str) -> str:
    film = rng.choice(FILMS)
    if tone == "emoji_only":
        return "".join(rng.choices(EMOJI, k=rng.randint(1, 3)))
    if tone == "other_language":
        return " ".join(
            phrase.format(film=film)
            for phrase in rng.sample(OTHER_LANGUAGES, 1) + ([rng.choice(EMOJI)] if rng.random() < 0.4 else [])
        )

    parts = [rng.choice(OPENINGS).format(film=film)]
    if tone == "positive":
        parts += [*rng.sample(GOOD, rng.randint(2, 5)), rng.choice(GOOD_ENDINGS)]
    elif tone == "negative":
        parts += [*rng.sample(BAD, rng.randint(2, 5)), rng.choice(BAD_ENDINGS)]
    else:
        count = rng.randint(1, 2)
        parts += [*rng.sample(GOOD, count), rng.choice(TURNS), *rng.sample(BAD, count)]
        parts.append(rng.choice(MIXED_ENDINGS))
    text = parts[0]
    for part in parts[1:]:
        text += rng.choice(JOINTS) + part
    return text


def _facts(reviews: list[Review], customers: list[Customer]) -> dict[str, Any]:
    buyers = {customer.customer_id for customer in customers if customer.buys}
    writers = {review.customer_id for review in reviews}
    return {
        "customers": len(writers),
        "customers_who_may_not_buy": len(writers - buyers),
        "tones": dict(sorted(Counter(review.tone for review in reviews).items())),
    }
