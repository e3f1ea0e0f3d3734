"""The OpenLineage standard as JSON Schema, out of the classes that the project's client generates from its spec.

Stricter than the spec in one point: a property that the standard does not know is an error.
"""

from __future__ import annotations

import pkgutil
import types
import typing
from enum import Enum
from functools import cache
from importlib import import_module
from typing import Any

import attr
from jsonschema import Draft202012Validator
from openlineage.client import generated
from openlineage.client.generated import base

SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Any: {},
}
FORMATS = {
    "eventTime": "date-time",
    "runId": "uuid",
    "producer": "uri",
    "schemaURL": "uri",
    "_producer": "uri",
    "_schemaURL": "uri",
}


def errors(event: dict[str, Any]) -> list[str]:
    """What is wrong with an event; nothing, if it is as the standard has it. Facets are looked at one by one."""
    checker = Draft202012Validator.FORMAT_CHECKER
    assert {"date-time", "uuid", "uri"} <= checker.checkers.keys(), "formats would not be checked"
    found = _errors(event, schema(base.RunEvent), checker)
    for facet in _facets(event):
        kind = facets().get(facet.get("_schemaURL"))
        found += _errors(facet, schema(kind), checker) if kind else [f"no such facet: {facet}"]
    return found


def _errors(part: Any, rules: dict[str, Any], checker: Any) -> list[str]:
    validator = Draft202012Validator(rules, format_checker=checker)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(part)]


def _facets(event: dict[str, Any]) -> list[dict[str, Any]]:
    datasets = [*event.get("inputs", []), *event.get("outputs", [])]
    holders = [event["run"].get("facets", {}), event["job"].get("facets", {})]
    holders += [d.get(name, {}) for d in datasets for name in ("facets", "inputFacets", "outputFacets")]
    return [facet for holder in holders for facet in holder.values()]


@cache
def facets() -> dict[str, type]:
    """The standard's facets, by the address of their schema."""
    found = {}
    for module in pkgutil.iter_modules(generated.__path__):
        for kind in vars(import_module(f"{generated.__name__}.{module.name}")).values():
            if isinstance(kind, type) and issubclass(kind, base.BaseFacet):
                found[kind._get_schema()] = kind
    return found


@cache
def schema(kind: type) -> dict[str, Any]:
    """The JSON Schema of one of the client's classes."""
    definitions: dict[str, dict[str, Any]] = {}
    return {**_reference(kind, definitions), "$defs": definitions}


def _reference(kind: type, definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    # Schemas have fields that have fields: a class may be a part of itself.
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}
        definitions[kind.__name__].update(_object(kind, definitions))
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _object(kind: Any, definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    properties, required = {}, []
    for field in attr.fields(kind):
        rules = _rules(hints[field.name], definitions)
        if field.name in FORMATS:
            rules = {**rules, "format": FORMATS[field.name]}
        properties[field.name] = rules
        # The client fills in producer and schemaURL, which the standard requires.
        if field.default is attr.NOTHING or field.name in FORMATS:
            required.append(field.name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _rules(hint: Any, definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if hint in SIMPLE:
        return SIMPLE[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_rules(a, definitions) for a in arguments if a is not type(None)]}
    if origin is list:
        return {"type": "array", "items": _rules(arguments[0], definitions)}
    if origin is dict:
        # A facet has its own schema, see `errors`; here only that it is one.
        of_facets = isinstance(arguments[1], type) and issubclass(arguments[1], base.BaseFacet)
        rules = {"type": "object", "required": ["_producer", "_schemaURL"]} if of_facets else None
        return {"type": "object", "additionalProperties": rules or _rules(arguments[1], definitions)}
    if issubclass(hint, Enum):
        return {"enum": [member.value for member in hint]}
    return _reference(hint, definitions)
