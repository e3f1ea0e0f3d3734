"""The feeds, by name. Adding one is adding a file here and its tests."""

from jobs.feeds.declaration import Feed
from jobs.feeds.logs import LOGS
from jobs.feeds.purchases import PURCHASES
from jobs.feeds.reviews import REVIEWS

FEEDS: dict[str, Feed] = {feed.name: feed for feed in (LOGS, PURCHASES, REVIEWS)}
