"""The feeds, by name. A new one is a file here, its name below and in `dags/user_analytics.py`, and its tests."""

from jobs.feeds.customers import CUSTOMERS
from jobs.feeds.declaration import Feed
from jobs.feeds.events import EVENTS
from jobs.feeds.logs import LOGS
from jobs.feeds.orders import ORDERS
from jobs.feeds.purchases import PURCHASES
from jobs.feeds.reviews import REVIEWS
from jobs.feeds.users import USERS

FEEDS: dict[str, Feed] = {
    feed.name: feed for feed in (LOGS, PURCHASES, REVIEWS, USERS, EVENTS, CUSTOMERS, ORDERS)
}
