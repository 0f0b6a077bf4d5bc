"""Frozen dataclasses to JSON and back, and the JSON Schema of what is written.

Only what the objects between the stages are made of is supported: dataclasses, tuples, string-keyed dicts, literals,
optional values, strings, numbers, booleans, dates and paths. Not-a-number becomes null: JSON has no word for it.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any

from .errors import InputError


def to_json(value: Any) -> Any:
    """Return a value as what ``json.dumps`` writes without options."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_json(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, Path):
        return value.as_posix()
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    number = float(value)
    if not math.isfinite(number):
        return None
    # A numpy integer arrives here; it is written as the integer that it is.
    return int(value) if not isinstance(value, float) and number.is_integer() and hasattr(value, "dtype") else number


def from_json(kind: Any, data: Any, where: str = "") -> Any:
    """Build a value of a type from what ``to_json`` made of it.

    Raises
    ------
    InputError
        If the data does not fit, naming the place.
    """
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if kind is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        return _first_that_fits([item for item in arguments if item is not type(None)], data, where)
    if origin is typing.Literal:
        if data not in arguments:
            raise InputError(f"{where}: {data!r} is none of {', '.join(map(repr, arguments))}.")
        return data
    if dataclasses.is_dataclass(kind):
        return _dataclass_from_json(typing.cast(type, kind), data, where)
    if origin is tuple:
        return _tuple_from_json(arguments, data, where)
    if origin is dict:
        _expect(isinstance(data, dict), "an object", data, where)
        return {key: from_json(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    return _scalar_from_json(kind, data, where)


def _first_that_fits(kinds: list[Any], data: Any, where: str) -> Any:
    problems: list[str] = []
    for kind in kinds:
        try:
            return from_json(kind, data, where)
        except InputError as error:
            problems.extend(error.problems)
    raise InputError(problems)


@cache
def _hints_of(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _dataclass_from_json(kind: type, data: Any, where: str) -> Any:
    _expect(isinstance(data, dict), "an object", data, where)
    hints, fields = _hints_of(kind), {item.name: item for item in dataclasses.fields(kind)}
    if unknown := sorted(set(data) - set(fields)):
        raise InputError(
            f"{where or kind.__name__}: unknown entry {', '.join(unknown)}; it was written by another version."
        )
    values = {}
    for name, item in fields.items():
        if name in data:
            values[name] = from_json(hints[name], data[name], f"{where}.{name}" if where else name)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise InputError(f"{where or kind.__name__}: the entry {name} is missing.")
    return kind(**values)


def _tuple_from_json(arguments: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    _expect(isinstance(data, list), "a list", data, where)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(from_json(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(data))
    _expect(len(data) == len(arguments), f"a list of {len(arguments)}", data, where)
    pairs = zip(arguments, data, strict=True)
    return tuple(from_json(kind, item, f"{where}[{index}]") for index, (kind, item) in enumerate(pairs))


def _scalar_from_json(kind: Any, data: Any, where: str) -> Any:
    if kind is float:
        _expect(isinstance(data, int | float) and not isinstance(data, bool), "a number", data, where)
        return float(data)
    if kind is int:
        _expect(isinstance(data, int) and not isinstance(data, bool), "a whole number", data, where)
        return data
    if kind is bool or kind is str:
        _expect(isinstance(data, kind), "true or false" if kind is bool else "a text", data, where)
        return data
    if kind is Path:
        _expect(isinstance(data, str), "a path", data, where)
        return Path(data)
    if kind is datetime.date:
        try:
            return datetime.date.fromisoformat(data)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: {data!r} is not a date; write YYYY-MM-DD.") from error
    raise TypeError(f"{kind} is not supported")


def _expect(fits: bool, wanted: str, data: Any, where: str) -> None:
    if not fits:
        raise InputError(f"{where}: {wanted} is needed, not {str(data)[:60]!r}.")


def json_schema(kind: type, *, title: str, description: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a dataclass; entries beyond its fields are refused."""
    definitions: dict[str, Any] = {}
    root = _schema_of(kind, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema_of(item, definitions) for item in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if dataclasses.is_dataclass(kind):
        return _dataclass_schema(typing.cast(type, kind), definitions)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": _schema_of(arguments[0], definitions)}
        items = [_schema_of(item, definitions) for item in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1], definitions)}
    names = {float: "number", int: "integer", bool: "boolean", str: "string", type(None): "null", Path: "string"}
    if kind is datetime.date:
        return {"type": "string", "format": "date"}
    return {"type": names[kind]}


def _dataclass_schema(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    reference = {"$ref": f"#/$defs/{kind.__name__}"}
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        definitions[kind.__name__] = {
            "type": "object",
            "description": " ".join((kind.__doc__ or "").split()),
            "properties": {item.name: _schema_of(hints[item.name], definitions) for item in fields},
            "required": [item.name for item in fields],
            "additionalProperties": False,
        }
    return reference
