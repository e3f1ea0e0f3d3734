"""Which name of a raw file fills which field of a feed: the declared names, or those of a mapping file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from jobs.errors import ConfigurationError
from jobs.feeds.declaration import Feed, RawFormat

SourceNames = Mapping[str, tuple[str, ...]]


def declared_sources(feed: Feed) -> SourceNames:
    """Field name → the names that raw files may use for it."""
    return {field.name: field.sources for field in feed.fields}


def mapping_text(feed: Feed, names: SourceNames) -> str | None:
    """What names say beyond the feed's declaration, as JSON for the ledger; None when they are the declared ones."""
    declared = declared_sources(feed)
    other = {field: list(sources) for field, sources in names.items() if sources != declared[field]}
    return json.dumps(other, sort_keys=True, ensure_ascii=False) if other else None


def mapped_sources(feed: Feed, text: str | None) -> SourceNames:
    """The names that `mapping_text` wrote down."""
    other = {field: tuple(sources) for field, sources in json.loads(text or "{}").items()}
    return {field: other.get(field, sources) for field, sources in declared_sources(feed).items()}


def load_mapping(feed: Feed, file: Path) -> SourceNames:
    """Read a JSON mapping and put its names before the declared ones.

    The file holds one object of `"source name": "field"`, or the other way round, `"field": "source name"`; a
    dotted source name leads into nested JSON records (`{"user_id": "actor.login"}`).

    Raises ConfigurationError naming the file and the entry when it is not such an object, names no field, has a source
    name that leads nowhere, or gives one to two fields.
    """
    if not file.is_file():
        raise ConfigurationError(f"mapping {file}: not a file")
    try:
        entries = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_once)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigurationError(f"mapping {file}: not JSON: {error}") from None
    except KeyError as error:
        # Of two, JSON's readers take the last one, without a word.
        raise ConfigurationError(f"mapping {file}: {error.args[0]} stands there more than once") from None
    if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
        raise ConfigurationError(f'mapping {file}: expected one object such as {{"source name": "field"}}')
    # A field without sources is derived from others.
    fields = {field.name for field in feed.fields if field.sources}
    by_source = all(value in fields for value in entries.values())
    by_field = all(key in fields for key in entries)
    if not by_source and not by_field:
        unknown = sorted(value for key, value in entries.items() if value not in fields and key not in fields)
        if not unknown:
            raise ConfigurationError(
                f"mapping {file}: in some entries the field of {feed.name} stands first, in others last; "
                'write all as "source name": "field"'
            )
        raise ConfigurationError(
            f"mapping {file}: {', '.join(unknown)}: not a field of {feed.name}; "
            f"the fields are {', '.join(name for name in feed.columns if name in fields)}"
        )
    pairs = [(value, key) if by_source else (key, value) for key, value in entries.items()]
    if feed.format is RawFormat.CSV:
        # A header's names lose the blanks around them, too.
        pairs = [(name, source.strip()) for name, source in pairs]
    elif leading_nowhere := [source for _, source in pairs if not all(source.split("."))]:
        # Written as for jq (`.actor.login`), it would find nothing.
        raise ConfigurationError(
            f"mapping {file}: {json.dumps(leading_nowhere[0])}: a dot leads from one name to the next, as in "
            '"actor.login"; here a name is missing'
        )
    # In a CSV file's header, letter case does not matter.
    same: Callable[[str], str] = str.lower if feed.format is RawFormat.CSV else str
    names = {field.name: field.sources for field in feed.fields}
    given: dict[str, str] = {}
    for name, source in pairs:
        if (other := given.setdefault(same(source), name)) != name:
            raise ConfigurationError(f"mapping {file}: {source} is given to two fields, {other} and {name}")
    secrets = {source for name in feed.secrets for source in names[name]}
    for name, source in pairs:
        if source.lower() in secrets and name not in feed.secrets:
            raise ConfigurationError(f"mapping {file}: {source} is a secret, {name} is not one")
        mapped = tuple(s for f, s in pairs if f == name)
        names[name] = mapped + tuple(s for s in names[name] if s not in mapped)
        # A source name given to one field no longer means another.
        for other in names:
            if other != name:
                names[other] = tuple(s for s in names[other] if same(s) != same(source))
    return names


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON. Raises KeyError for a name that stands in it twice."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise KeyError(name)
        found[name] = value
    return found
