"""What a rule is. Feeds declare theirs in `jobs/feeds/<feed>.py`, tables in `sql/<table>.toml`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum

NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
NOW = "now"
Bound = int | float | Decimal | date | str


class Kind(StrEnum):
    """What a rule looks at. The last two come with a feed's fields and are not declared on their own."""

    REQUIRED = "required"
    PATTERN = "pattern"
    RANGE = "range"
    SET = "set"
    UNIQUE = "unique"
    REFERENCE = "reference"
    FRESHNESS = "freshness"
    VOLUME = "volume"
    READABLE = "readable"
    LENGTH = "length"


class Action(StrEnum):
    """What becomes of a broken rule: the record goes to quarantine; a line in the log; the run stops, unpublished."""

    REJECT = "reject"
    WARN = "warn"
    FAIL = "fail"


# One record alone tells whether it breaks these; only they can reject. A value that is missing breaks `required` only.
OF_A_RECORD = frozenset({Kind.REQUIRED, Kind.PATTERN, Kind.RANGE, Kind.SET})
BROKEN = {
    Kind.REQUIRED: "missing",
    Kind.PATTERN: "unexpected",
    Kind.RANGE: "out_of_range",
    Kind.SET: "not_in_set",
    Kind.UNIQUE: "not_unique",
    Kind.REFERENCE: "unknown",
    Kind.FRESHNESS: "late",
    Kind.VOLUME: "volume",
    Kind.READABLE: "invalid",
    Kind.LENGTH: "too_long",
}


@dataclass(frozen=True)
class Rule:
    """One rule. name: says what is wrong when it is broken, `<columns>_<defect>` where not said; a reject's reason.

    pattern: a regular expression that is found in the text. low, high: both belong to the range; `now` is the time of
    the run. values: of a set. table, column: where a reference has to be found: another feed's staging for a feed,
    another mart for a table. within: how old the newest value of a column may be; of a feed without a column, the last
    new file. tolerance: by which share of the median a file's number of records may differ from it. longest: of a text.
    """

    kind: Kind
    columns: tuple[str, ...] = ()
    action: Action = Action.WARN
    name: str = ""
    pattern: str | None = None
    low: Bound | None = None
    high: Bound | None = None
    values: tuple[str | int | bool, ...] = ()
    table: str = ""
    column: str = ""
    within: timedelta | None = None
    tolerance: float | None = None
    longest: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError, naming what is wrong, for a rule that cannot be meant."""
        if not self.name:
            object.__setattr__(self, "name", "_".join((*self.columns, BROKEN[self.kind])))
        needed = {
            Kind.PATTERN: self.pattern is not None,
            Kind.RANGE: self.low is not None or self.high is not None,
            Kind.SET: bool(self.values),
            Kind.REFERENCE: bool(self.table and self.column),
            Kind.FRESHNESS: self.within is not None,
            Kind.VOLUME: self.tolerance is not None and self.tolerance > 0,
        }
        problem = None
        if not NAME.fullmatch(self.name) or self.name == "row_count":
            problem = "a name has small letters, digits and _ only"
        elif not needed.get(self.kind, True):
            problem = f"a {self.kind} needs {NEEDS[self.kind]}"
        elif self.action is Action.REJECT and self.kind not in OF_A_RECORD | {Kind.READABLE, Kind.LENGTH}:
            problem = f"{self.kind} cannot reject: it does not say which record is wrong"
        elif len(self.columns) != 1 and self.kind not in (Kind.UNIQUE, Kind.VOLUME, Kind.FRESHNESS):
            problem = f"a {self.kind} is about one column"
        elif self.kind is Kind.UNIQUE and not self.columns:
            problem = "a unique needs columns"
        elif self.kind is Kind.PATTERN:
            try:
                re.compile(self.pattern or "")
            except re.error as error:
                problem = f"pattern {self.pattern!r}: {error}"
        if problem:
            raise ValueError(f"rule {self.name}: {problem}")

    @property
    def wanted(self) -> str:
        """What the rule asks for, in words."""
        match self.kind:
            case Kind.REQUIRED:
                return "is there"
            case Kind.PATTERN:
                return f"fits {self.pattern}"
            case Kind.RANGE:
                low = "" if self.low is None else f"from {self.low}"
                return " ".join(filter(None, (low, "" if self.high is None else f"to {self.high}")))
            case Kind.SET:
                values = ", ".join(
                    str(value).lower() if isinstance(value, bool) else str(value) for value in self.values
                )
                return f"one of {values}" if len(self.values) > 1 else f"is {values}"
            case Kind.UNIQUE:
                return "different in each record"
            case Kind.REFERENCE:
                return f"is in {self.table}.{self.column}"
            case Kind.FRESHNESS:
                return (
                    f"something new every {span(self.within)}"
                    if not self.columns
                    else f"at most {span(self.within)} old"
                )
            case Kind.VOLUME:
                return f"records of a file within {self.tolerance:.0%} of the median"
            case Kind.LENGTH:
                return f"at most {self.longest:,} characters"
            case Kind.READABLE:
                return "can be read"


NEEDS = {
    Kind.PATTERN: "a pattern",
    Kind.RANGE: "low or high",
    Kind.SET: "values",
    Kind.REFERENCE: "table and column",
    Kind.FRESHNESS: "the time within which something new comes",
    Kind.VOLUME: "a tolerance above 0",
}


@dataclass(frozen=True)
class RuleResult:
    """What a run found by a rule, as it stands in `etl_checks`.

    subject: a table of the warehouse, or `staging/<feed>`. kind, action: as the rule's; `format` for reasons why a
    record could not be taken apart. passed: a rule that rejects has done its work when the records are kept out.
    """

    subject: str
    rule: str
    kind: str
    action: Action
    rows_checked: int
    rows_failing: int
    expected: str
    found: str | None = None

    @property
    def passed(self) -> bool:
        return self.action is Action.REJECT or not self.rows_failing


def span(time: timedelta | None) -> str:
    """A span for people: `1 d`, `36 h`."""
    if time is None:
        return "-"
    days, hours = time.days, time.seconds / 3600
    return f"{days} d" if not hours else f"{24 * days + hours:g} h"
