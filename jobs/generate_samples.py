"""Write sample files for all feeds, with realistic dirt.

Grain:    one file per day (logs), per month (purchases, users, events), in all (reviews, customers,
          orders).
Inputs:   a seed and a scale; never the clock.
Outputs:  FOLDER/<feed>/<file>, and on request a manifest of what is in them (--manifest).
Re-run:   the same seed and scale write the same bytes; other files in FOLDER stay.
Needs neither Spark nor any package:

    python -m jobs.generate_samples build/samples --manifest build/samples-manifest.json

At scale 1 and seed 7 this is what the files hold. ``--manifest`` gives the same for any
seed and scale, per file and by kind, for tests to compare with what the pipeline reports.

    feed       files                                  records  accepted  duplicates  rejected
    logs       10 days of app-<date>.json, .jsonl,     20,336    20,000         172       164
               .jsonl.gz, in turn
    purchases  retail-2010-12.csv,                      8,051     8,011           0        40
               retail-2011-01.csv
    reviews    movie-reviews.csv                          607       600           6         1
    users      users-2024-06.csv,                         788       744          30        14
               users-2024-07.csv
    events     events-2024-01.csv,                      4,466     4,420          30        16
               events-2024-02.csv
    customers  customers.csv                            1,019     1,000          10         9
    orders     orders.csv                               5,080     5,000          50        30

Unusual but right, and accepted:

    logs       timestamps with and without offset and fraction, a leap day, user ids as
               numbers, null or missing metadata, device or location, fields unknown to
               the contract (app_version, metadata.os_version), escaped and plain non-ASCII
    purchases  two headers, two date styles, two line ends; guests, returns, free lines, exact
               repeats, customer ids such as 17850.0; quotes, commas and line breaks in quotes
    reviews    HTML breaks, line breaks, doubled quotes, other languages, emoji only;
               reviewers who never bought
    users      e-mail addresses in capitals and with spaces, four kinds of password hashes,
               IPv4, IPv6 and addresses that cannot be located; users as they were before
               the first file, in the second one
    events     no country, no tags, three separators of tags, capitals in addresses, events
               of the month before, ids of other events
    customers  no age, no city
    orders     no customer, customers that are not known

Duplicates, by the feed's natural key:

    logs       (user_id as text, timestamp as an instant, action_type): exact copies in the
               same file, copies of yesterday's events, and the same event with another
               offset or with its user's number as text. No two other events share a key.
    purchases  none: the source has no key, a repeated line is a second sale
    reviews    id_review: the same review delivered twice
    users      the same user with the same updated_at and content, in another month's file
    events     id and content: copies in the same file and in the next month's, spelt otherwise
    customers  customer_id: exact copies
    orders     order_id: exact copies

Rejected, each record with one defect only:

    logs       garbage_line (.jsonl, .jsonl.gz), user_id_missing, action_type_blank,
               action_type_too_long, timestamp_impossible, timestamp_epoch_milliseconds
    purchases  quantity_not_a_number, unit_price_not_a_number, invoice_number_missing,
               invoice_date_impossible, too_few_columns
    reviews    review_text_empty
    users      password_in_plain_text, email_missing, email_without_domain,
               created_at_impossible, too_few_columns
    events     id_missing, email_without_domain, timestamp_impossible, too_many_columns
    customers  age_impossible, name_missing, registration_date_impossible
    orders     quantity_zero, price_not_a_number, order_date_impossible
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.errors import of_system
from jobs.samples.customers import make_customer_orders
from jobs.samples.events import make_events
from jobs.samples.logs import make_logs
from jobs.samples.model import SampleFeed, make_customers
from jobs.samples.purchases import make_purchases
from jobs.samples.reviews import make_reviews
from jobs.samples.users import make_users

# All files are made in memory, 5 MB at scale 1.
MAX_SCALE = 1_000


def make_samples(seed: int = 7, scale: float = 1.0) -> list[SampleFeed]:
    """All feeds in memory, about 5 MB at scale 1, with what is known about them."""
    customers = make_customers(seed, scale)
    return [
        make_logs(seed, scale, customers),
        make_purchases(seed, scale, customers),
        make_reviews(seed, scale, customers),
        make_users(seed, scale),
        make_events(seed, scale),
        *make_customer_orders(seed, scale),
    ]


def write_samples(folder: Path, seed: int = 7, scale: float = 1.0) -> list[Path]:
    """Write ``folder/<feed>/<file>`` for every feed; the paths in the order of feed and file."""
    return _write(folder, make_samples(seed, scale))


def manifest(seed: int = 7, scale: float = 1.0) -> dict[str, Any]:
    """Per feed: records = accepted + duplicates + rejected, by file and kind, and known facts."""
    return _manifest(seed, scale, make_samples(seed, scale))


def _manifest(seed: int, scale: float, feeds: list[SampleFeed]) -> dict[str, Any]:
    return {"seed": seed, "scale": scale, "feeds": {feed.name: feed.manifest() for feed in feeds}}


def _write(folder: Path, feeds: list[SampleFeed]) -> list[Path]:
    paths = []
    for feed in feeds:
        (folder / feed.name).mkdir(parents=True, exist_ok=True)
        for file in feed.files:
            path = folder / feed.name / file.name
            path.write_bytes(file.content)
            paths.append(path)
    return paths


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="user-analytics generate-samples",
        description="Write deterministic sample files for all feeds.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="files are written to FOLDER/<feed>/")
    parser.add_argument("--seed", type=int, default=7, help="other seeds, other data (default: 7)")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is some 40,000 records (default: 1)")
    parser.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="also write what the files hold, as JSON; keep it outside FOLDER/<feed>",
    )
    arguments = parser.parse_args(argv)
    if not 0 < arguments.scale <= MAX_SCALE:
        parser.error(f"--scale is {arguments.scale}, expected a number above 0, at most {MAX_SCALE:,}")
    try:
        _generate(arguments)
    except OSError as error:
        known = of_system(error)
        sys.stderr.write(f"error: {known}\n")
        return known.exit_code
    return 0


def _generate(arguments: argparse.Namespace) -> None:
    feeds = make_samples(arguments.seed, arguments.scale)
    for path in _write(arguments.folder, feeds):
        sys.stdout.write(f"{path}  {path.stat().st_size:,} bytes\n")
    if arguments.manifest:
        content = _manifest(arguments.seed, arguments.scale, feeds)
        arguments.manifest.parent.mkdir(parents=True, exist_ok=True)
        arguments.manifest.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
