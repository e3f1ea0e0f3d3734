"""Who is to be erased, and what names them: pure functions over texts and records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jobs.errors import ConfigurationError
from jobs.feeds.declaration import Feed
from jobs.feeds.mapping import SourceNames

# A column of one of these names identifies a person wherever it stands: in feeds, staging and marts.
ID_COLUMNS = ("customer_id", "user_id")
# Delta's statistics cut texts after so many characters.
STATISTICS_LENGTH = 32
EMAIL = re.compile(r"[^@\s\"(),:;<>\[\]\\]+@[^@\s\"(),:;<>\[\]\\]+")
DECIMALS = re.compile(r"(\d+)\.0+")
# What no writer of JSON escapes.
PLAIN = re.compile(r"[a-z0-9._-]*")
# A backslash and what it makes of the next character in JSON; a character may need two `\u`.
ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\.")
CONTROLS = {r"\b": "\b", r"\f": "\f", r"\n": "\n", r"\r": "\r", r"\t": "\t"}


def readings(text: str) -> Iterator[str]:
    """A text as it stands there and as JSON reads it, again and again: a JSON text may be a value in another."""
    yield text
    while "\\" in text and (read := ESCAPES.sub(_unescaped, text)) != text:
        yield read
        text = read


def _unescaped(escapes: re.Match[str]) -> str:
    found = escapes[0]
    if len(found) == 2:
        return CONTROLS.get(found, found[1])
    return bytes.fromhex(found.replace("\\u", "")).decode("utf-16-be", "surrogatepass")


def address_pattern(address: str) -> str:
    """A regular expression, for Python and Java, of an address as a whole: `ann@x.org` is not in `joann@x.org`.

    The at sign may be written as in an address of a page, `%40`, and what is not `PLAIN` as JSON may have it.
    """
    name, _, domain = ("".join(map(_spellings, part)) for part in address.partition("@"))
    begin = r"(?:(?<![\w.+'-])|(?<=%[0-9A-Fa-f]{2}))"
    return rf"(?iu){begin}{name}(?:@|%40|\\+u0040){domain}(?![\w-]|\.\w)"


def _spellings(character: str) -> str:
    if PLAIN.fullmatch(character):
        return re.escape(character)
    forms = {
        re.sub("....", r"\\\\+u\g<0>", c.encode("utf-16-be").hex()) for c in (character, character.upper())
    }
    return rf"(?:\\*{re.escape(character)}|{'|'.join(sorted(forms))})"


def plain_part(address: str) -> str:
    """The longest part of the name in an address that is always written like that, letter case apart."""
    parts: list[str] = PLAIN.findall(address.partition("@")[0])
    return max(parts, key=len)


def same_id(text: str) -> str:
    """An identifier as feeds read it: `17850.0` is `17850`."""
    text = text.strip()
    found = DECIMALS.fullmatch(text)
    return found[1] if found else text


@dataclass(frozen=True)
class Person:
    """One person's addresses (lower case) and identifiers. ids: by column, see ID_COLUMNS."""

    emails: tuple[str, ...] = ()
    ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.emails and not any(self.ids.values()):
            raise ConfigurationError("erase: name the person by --email, --customer-id or --user-id")
        if any(not EMAIL.fullmatch(email) for email in self.emails):
            raise ConfigurationError("erase: --email is not an e-mail address")
        if any(not text for texts in self.ids.values() for text in texts):
            raise ConfigurationError("erase: an empty identifier")

    @cached_property
    def _addresses(self) -> re.Pattern[str] | None:
        patterns = [address_pattern(email).removeprefix("(?iu)") for email in self.emails]
        # What statistics cut off is a trace, too.
        patterns += [
            re.escape(email[:STATISTICS_LENGTH]) + r"(?=[\"\\])"
            for email in self.emails
            if len(email) > STATISTICS_LENGTH
        ]
        return re.compile("|".join(patterns), re.IGNORECASE) if patterns else None

    @cached_property
    def _tokens(self) -> re.Pattern[str] | None:
        # CSV writes a quote twice.
        ids = [re.escape(text).replace('"', '"+') for texts in self.ids.values() for text in texts]
        return re.compile(rf"(?<![\w.-])(?:{'|'.join(ids)})(?:\.0+)?(?![\w-]|\.\w)") if ids else None

    def is_named_in(self, text: str) -> bool:
        """Whether an address of the person stands in a text, be it escaped as in JSON."""
        found = self._addresses
        return found is not None and any(found.search(reading) for reading in readings(text))

    def may_be_in(self, text: str) -> bool:
        """Whether an address or an identifier stands in a text; an identifier may mean something else there."""
        found = self._tokens
        return self.is_named_in(text) or (
            found is not None and any(found.search(reading) for reading in readings(text))
        )

    def without_addresses(self, text: str) -> str:
        """The text with `***` in place of the person's addresses."""
        return self._addresses.sub("***", text) if self._addresses else text

    def has_id(self, column: str, value: object) -> bool:
        """Whether a value of an identifying column is the person's."""
        return value is not None and same_id(str(value)) in self.ids.get(column, ())

    def feed_ids(self, feed: Feed) -> tuple[str, ...]:
        """The identifying columns of a feed for which the person has identifiers."""
        return tuple(c for c in ID_COLUMNS if c in feed.columns and self.ids.get(c))

    def owns_cells(
        self, places: Mapping[str, Sequence[int]], width: int, cells: Sequence[str], text: str
    ) -> bool:
        """Whether a CSV record is the person's. text: the record as it stands in the file.

        places: where each of `feed_ids` stands. Of a record that has not as many cells as the header, which has width,
        any cell may be the identifier.
        """
        if self.is_named_in(text):
            return True
        if len(cells) != width:
            return any(self.has_id(column, cell) for column in places for cell in cells)
        return any(self.has_id(column, cells[i]) for column, there in places.items() for i in there)

    def owns_json(self, feed: Feed, names: SourceNames, text: str) -> bool:
        """Whether a JSON record is the person's. In one that cannot be taken apart, an identifier anywhere counts."""
        if self.is_named_in(text):
            return True
        wanted = self.feed_ids(feed)
        try:
            # Numbers as they stand there, as in staging.
            value = json.loads(text, object_pairs_hook=_each_name_once, parse_int=str, parse_float=str)
        except (ValueError, RecursionError):
            return bool(wanted) and self.may_be_in(text)
        return any(
            self.has_id(column, found)
            for column in wanted
            for source in names[column]
            for found in _values(value, source)
        )


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _values(value: Any, path: str) -> Iterator[Any]:
    """What stands at a dotted path, letter case apart."""
    if not isinstance(value, dict):
        return
    first, _, rest = path.partition(".")
    for name, inner in value.items():
        if name.lower() == path.lower():
            yield inner
        elif rest and name.lower() == first.lower():
            yield from _values(inner, rest)


def person(emails: Iterable[str], customer_ids: Iterable[str], user_ids: Iterable[str]) -> Person:
    """A person by what is known of them. Raises ConfigurationError when that is nothing, or no address."""
    ids = {
        "customer_id": tuple(map(same_id, customer_ids)),
        "user_id": tuple(map(same_id, user_ids)),
    }
    return Person(
        tuple(email.strip().lower() for email in emails),
        {name: found for name, found in ids.items() if found},
    )
