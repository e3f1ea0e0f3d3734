"""Records as examples: what says something about a person, or may, is not shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from jobs.feeds.declaration import Feed
from jobs.feeds.mapping import SourceNames

MASK = "***"
LONGEST = 80
# Wherever it stands: a value that slipped into another column is as personal there.
PERSONAL = re.compile(r"\S@\S|\b\d{1,3}(\.\d{1,3}){3}\b|[0-9a-fA-F]{32}|\$2[abxy]?\$|\$argon2")
QUOTES_HEADER = re.compile(r"the header is .*|'.*'|cannot be read to its end:.*", re.DOTALL)


def shown_record(feed: Feed, names: SourceNames, record: str) -> list[tuple[str, str]] | None:
    """A rejected record as (name, value) pairs, in which only values of known fields that are not personal are shown.

    names: by which its file was read. None for a record that could not be taken apart: nobody knows what is where.
    """
    try:
        content = json.loads(record)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    personal = {field.name for field in feed.fields if field.personal or field.secret}
    harmless = {
        source.lower() for field, sources in names.items() if field not in personal for source in sources
    }
    harmless -= {source.lower() for field in personal for source in names[field]}
    return [(_cut(name), _shown(name in harmless, value)) for name, value in _values("", content)]


def _values(prefix: str, content: dict[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in content.items():
        name = f"{prefix}{key}".lower()
        if isinstance(value, dict) and value:
            yield from _values(f"{name}.", value)
        else:
            yield name, value


def _shown(harmless: bool, value: object) -> str:
    if value is None or value == "":
        return "(empty)"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _cut(text) if harmless and not PERSONAL.search(text) else MASK


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def shown_error(feed: Feed, error: str) -> str:
    """Why a file was refused, without what it quotes from a file that holds personal data: a header may be a record."""
    return QUOTES_HEADER.sub("(not shown)", error) if feed.has_personal else error
