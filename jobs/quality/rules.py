"""What a rule is. Feeds declare theirs in `jobs/feeds/<feed>.py`, tables in `sql/<table>.toml`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from pyspark.sql import types as T

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


def misfit(rule: Rule, kind: T.DataType) -> str | None:
    """Why a rule cannot be asked of a column of this type, None where it can; Spark would say so in its own words."""
    is_text, is_number = isinstance(kind, T.StringType), isinstance(kind, T.NumericType)
    is_time = isinstance(kind, (T.DateType, T.TimestampType))
    what = f"{rule.columns[0]} is {kind.simpleString()}" if rule.columns else ""
    bounds = [bound for bound in (rule.low, rule.high) if bound is not None]
    match rule.kind:
        case Kind.PATTERN if not is_text:
            return f"{what}, a pattern is about texts"
        case Kind.FRESHNESS if rule.columns and not is_time:
            return f"{what}, a freshness is about days and instants"
        case Kind.RANGE if is_text and not all(isinstance(b, str) and b != NOW for b in bounds):
            return f"{what}, and so are its bounds"
        case Kind.RANGE if is_number and not all(map(_is_number, bounds)):
            return f"{what}, and so are its bounds"
        case Kind.RANGE if is_time and not all(b == NOW or _is_instant(b) for b in bounds):
            return f'{what}, its bounds are "{NOW}" or as "2000-01-01" and "2000-01-01 12:00:00"'
        case Kind.RANGE if not (is_text or is_number or is_time):
            return f"{what}, a range is about numbers, texts, days and instants"
        case Kind.SET if not all(_is_one_of(kind, value) for value in rule.values):
            return f"{what}, and so are its values"
    return None


def _is_one_of(kind: T.DataType, value: str | int | bool) -> bool:
    if isinstance(kind, T.BooleanType):
        return isinstance(value, bool)
    if isinstance(kind, T.NumericType):
        return _is_number(value)
    return isinstance(value, str) and (isinstance(kind, T.StringType) or _is_instant(value))


def _is_number(value: object) -> bool:
    try:
        return not isinstance(value, bool) and Decimal(str(value)).is_finite()
    except InvalidOperation:
        return False


def _is_instant(value: object) -> bool:
    if isinstance(value, date):
        return True
    try:
        return isinstance(value, str) and value[4:5] == "-" and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def span(time: timedelta | None) -> str:
    """A span for people: `1 d`, `36 h`."""
    if time is None:
        return "-"
    days, hours = time.days, time.seconds / 3600
    return f"{days} d" if not hours else f"{24 * days + hours:g} h"
