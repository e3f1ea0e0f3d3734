"""What every mart is made from, and how far it has followed that: for `plan`, `status`, `lineage` and `reset`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from jobs.context import RunContext
from jobs.enrich_customers import staged
from jobs.feeds import FEEDS
from jobs.lake.marts import declared, mart_table
from jobs.lake.staging import staging_table
from jobs.lake.tables import LakeTable

Mark = tuple[int, datetime | None]


@dataclass(frozen=True)
class Origin:
    """Tables that one step of `run` makes together.

    tables: those whose log says what they were made from; beside: made with them. feeds: staged feeds that are read.
    mart: another mart that is read instead.
    """

    step: str
    tables: tuple[str, ...]
    feeds: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    mart: str | None = None

    @property
    def all_tables(self) -> tuple[str, ...]:
        """In an order in which they can be removed: what says that all is made goes first."""
        return *self.tables, *self.beside

    @property
    def label(self) -> str:
        """The tables for people: many of them are counted."""
        first, *others = self.all_tables
        return f"{first} and {len(others)} more" if len(others) > 1 else ", ".join(self.all_tables)

    @property
    def all_feeds(self) -> tuple[str, ...]:
        """The feeds, also those behind another mart."""
        return origin_of(self.mart).all_feeds if self.mart else self.feeds


ORIGINS = (
    Origin(
        "build star schema",
        ("fact_user_actions",),
        ("logs",),
        beside=("dim_users", "dim_actions", "dim_devices", "dim_locations"),
    ),
    Origin("build purchases", ("user_purchase",), ("purchases",)),
    Origin("build review features", ("movie_review",), ("reviews",)),
    Origin("build users", ("users_history", "users"), ("users",)),
    Origin("build events", ("events",), ("events",)),
    Origin("build customer orders", ("customer_orders",), ("customers", "orders")),
    Origin("analyze orders", ("order_analysis",), mart="customer_orders"),
)


@dataclass(frozen=True)
class Followed:
    """How far marts have followed their source.

    newest: the source's version; of several feeds, the sum of their versions. applied: the version that the marts hold,
    None when they were not made from this source yet; at: since when; mark: how the marts call it. parts: what was
    applied of single months only.
    """

    newest: int
    applied: int | None = None
    at: datetime | None = None
    mark: str = ""
    parts: Mapping[str, Mark] = field(default_factory=dict)

    @property
    def waiting(self) -> int | None:
        """How many versions of the source were not applied; None when none was."""
        return None if self.applied is None else self.newest - self.applied


def origin_of(table: str) -> Origin:
    """Where a mart's table comes from."""
    return next(origin for origin in ORIGINS if table in origin.all_tables)


def source_tables(run: RunContext, origin: Origin) -> dict[str, LakeTable]:
    """The Delta tables that are read, by name; those that are there."""
    found = {name: staging_table(run, FEEDS[name]) for name in origin.feeds}
    if origin.mart:
        found[origin.mart] = mart_table(run, declared(origin.mart))
    return {name: table for name, table in found.items() if table.exists()}


def followed(run: RunContext, origin: Origin) -> Followed | None:
    """How far the marts have followed their source; None when there is no source yet."""
    sources = source_tables(run, origin)
    if not sources:
        return None
    if len(origin.feeds) > 1:
        both = staged(run)
        newest, suffix = both.version, both.name
    else:
        (source,) = sources.values()
        newest, suffix = source.version(), f":{source.table_id()}"
    marks: list[tuple[str, Mark]] = []
    parts: dict[str, Mark] = {}
    for name in origin.tables:
        table = mart_table(run, declared(name))
        known = table.transactions(run.store) if table.exists() else {}
        ours = {mark.removesuffix(suffix): known[mark] for mark in known if mark.endswith(suffix)}
        whole = {mark: at for mark, at in ours.items() if " of " not in mark}
        parts |= {mark.partition(" of ")[2]: at for mark, at in ours.items() if mark not in whole}
        # Of marks by several models, the one set last.
        if whole:
            marks.append(max(whole.items(), key=_set_at))
    if len(marks) < len(origin.tables):
        return Followed(newest, parts=parts)
    mark, (version, at) = min(marks, key=lambda found: found[1][0])
    return Followed(newest, version, at, mark, parts)


def _set_at(found: tuple[str, Mark]) -> float:
    at = found[1][1]
    return at.timestamp() if at else 0.0
