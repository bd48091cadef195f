"""A field of a json answer → its part of the answer, and what its schema lets stand there.

A field is names joined by dots; a list's places are named by number. Knows no condition.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from llava_video.errors import ConfigError

_MISSING: Final = object()
# A schema of these alone is checked here; of any other what may come is not known.
_WORDS: Final = {"title", "description", "default", "examples"}
_KINDS: Final[dict[str, Callable[[Any], bool]]] = {
    "boolean": lambda part: isinstance(part, bool),
    "null": lambda part: part is None,
    "string": lambda part: isinstance(part, str),
    "number": lambda part: _is_number(part),
    "integer": lambda part: _is_number(part) and not part % 1,
}
_LIMITS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "minimum": lambda part, limit: not _is_number(part) or part >= limit,
    "maximum": lambda part, limit: not _is_number(part) or part <= limit,
    "exclusiveMinimum": lambda part, limit: not _is_number(part) or part > limit,
    "exclusiveMaximum": lambda part, limit: not _is_number(part) or part < limit,
    "minLength": lambda part, limit: not isinstance(part, str) or len(part) >= limit,
    "maxLength": lambda part, limit: not isinstance(part, str) or len(part) <= limit,
}


def names_in(field: str) -> list[str]:
    """Return the names of a field, outermost first.

    >>> names_in("cars.0.colour")
    ['cars', '0', 'colour']
    """
    return [name for name in field.split(".") if name]


def part_of(value: Any, field: str) -> Any:
    """Return what a field names of a JSON value; something that equals nothing where it is not."""
    for name in names_in(field):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and re.fullmatch(r"\d{1,6}", name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return _MISSING
    return value


def is_missing(part: Any) -> bool:
    """Say whether `part_of` found nothing."""
    return part is _MISSING


def with_part(field: str, part: Any) -> Any:
    """Return a value that has a part where the field is, and nothing else.

    >>> with_part("cars.0", 3)
    {'cars': {'0': 3}}
    """
    for name in reversed(names_in(field)):
        part = {name: part}
    return part


def schema_of(field: str, schema: Mapping[str, Any]) -> Any:
    """Return the schema of a field: a mapping, `True` for anything, None where it is not known.

    Raises:
        ConfigError: by the schema there is no such field, or nothing may stand there.
    """
    inner: Any = schema
    for name in names_in(field):
        inner = _inner(inner, name, field)
        if inner is False:
            raise ConfigError(
                f"field = {field!r}: by the schema there is never a {name!r}.",
                "compare another field, or allow it in the schema.",
            )
    return inner


def is_whole(schema: Any) -> bool:
    """Say whether numbers that a schema allows are whole."""
    kinds = _kinds(schema)
    return kinds is not None and "integer" in kinds and "number" not in kinds


def named_in(schema: Any) -> list[str | int | float]:
    """Return the texts and numbers that a schema names: those allowed alone, and limits."""
    if not isinstance(schema, Mapping):
        return []
    named = [schema[name] for name in ("const", *_LIMITS) if name in schema]
    return [one for one in (*named, *schema.get("enum", ())) if isinstance(one, str | int | float)]


def allowed(schema: Any, parts: Iterable[Any]) -> list[Any]:
    """Return those of some texts, numbers, true, false and null that a schema lets stand there.

    Args:
        schema: as `schema_of` returns it; where nobody can say what it allows, nothing is returned.
        parts: any number.
    """
    if schema is True:
        return list(parts)
    known = {"type", "enum", "const", *_LIMITS, *_WORDS}
    if not isinstance(schema, Mapping) or not known.issuperset(schema):
        return []
    kinds = _kinds(schema)
    return [
        part
        for part in parts
        if (kinds is None or any(_KINDS[kind](part) for kind in kinds if kind in _KINDS))
        and ("enum" not in schema or _is_among(part, schema["enum"]))
        and ("const" not in schema or _is_among(part, [schema["const"]]))
        and all(holds(part, schema[name]) for name, holds in _LIMITS.items() if name in schema)
    ]


def _inner(schema: Any, name: str, field: str) -> Any:
    """Return the schema of one name of a field; see `schema_of`."""
    if not isinstance(schema, Mapping):
        return schema  # anything, or not known
    if schema.get("type") == "array" and name.isdecimal():
        return None if "prefixItems" in schema else schema.get("items", True)
    known = schema.get("properties")
    if known is None:
        return None  # $ref, anyOf and the like: what comes will show
    if name not in known:
        raise ConfigError(
            f"field = {field!r}: the schema has no {name!r}.",
            f"it has {', '.join(sorted(known)) or 'nothing'}.",
        )
    return known[name]


def _kinds(schema: Any) -> list[str] | None:
    kinds = schema.get("type") if isinstance(schema, Mapping) else None
    return [kinds] if isinstance(kinds, str) else kinds


def _is_number(part: Any) -> bool:
    return isinstance(part, int | float) and not isinstance(part, bool)


def _is_among(part: Any, values: Iterable[Any]) -> bool:
    return any(part == one and isinstance(part, bool) == isinstance(one, bool) for one in values)
