"""What all settings dataclasses share: checked fields, documented fields, YAML in and out.

A settings class is `@dataclass(frozen=True, slots=True, kw_only=True)` whose fields are made by
`setting(...)` and whose `__post_init__` calls `check(self)`. Knows no stage and imports no torch.
"""

import dataclasses
import difflib
import enum
import math
import numbers
import operator
import re
import types
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from llava_video.errors import ConfigError

T = TypeVar("T")

_KIND_WORDS: dict[object, str] = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    str: "text",
    type(None): "None",
}
_LIMITS = (
    ("at least", "at_least", operator.ge),
    ("above", "above", operator.gt),
    ("at most", "at_most", operator.le),
)
# YAML 1.2: `grid: off` is the word and `1e-5` the number; YAML 1.1 reads False and text, and would
# read 1:30 as 90.
_YAML_SCALARS = (
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^(?:[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
)


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    keyword: str = "",
) -> Any:
    """Declare one documented, range-checked field.

    Args:
        default: the default value; immutable.
        doc: what it does and why this default, one sentence.
        unit: "s", "px", "tokens", …; "" for a pure number or a word.
        at_least: least value allowed, inclusive; None for no limit. None values are not checked;
            of a tuple, each item is.
        at_most: greatest value allowed, inclusive.
        above: exclusive lower limit.
        keyword: what users call it, for messages; "" where that is the field's own name.
    """
    limits = {"at_least": at_least, "at_most": at_most, "above": above}
    metadata = {"doc": doc, "unit": unit, "keyword": keyword, **limits}
    return dataclasses.field(default=default, metadata=metadata)


def check(settings: Any, *, is_finite: bool = False) -> None:
    """Check every field's kind, closed set and range.

    Lists become tuples and the value of an enum its member, so that `stop=["."]` and
    `newline="row"` mean what they say.

    Args:
        settings: is changed where a value is brought to its kind.
        is_finite: whether its numbers have an end; elsewhere infinity is a way to say "always".

    Raises:
        ConfigError: with the field, as users call it, its value and what is allowed.
    """
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        given = getattr(settings, field.name)
        value = _plain_to_field(hints[field.name], given)
        _check_kind(_keyword(field), value, hints[field.name])
        _check_range(field, value)
        if is_finite and isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{_keyword(field)} = {value!r}.", "allowed: a finite number.")
        if value is not given:
            object.__setattr__(settings, field.name, value)


def from_mapping(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build a dataclass from plain values, nested as the dataclasses nest.

    Raises:
        ConfigError: on an unknown key (the nearest name is in the hint), a missing one or a bad
            value.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # T is a dataclass
    names = {field.name for field in fields}
    hints = get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(names))}."
            raise ConfigError(f"{cls.__name__} has no setting {key!r}.", hint)
        arguments[key] = _plain_to_field(hints[key], value)
        _check_kind(key, arguments[key], hints[key])
    missing = [field.name for field in fields if _is_required(field) and field.name not in values]
    if missing:
        raise ConfigError(f"{cls.__name__} lacks {', '.join(missing)}.", "give each a value.")
    return cls(**arguments)


def to_mapping(settings: Any) -> dict[str, Any]:
    """Turn a dataclass into plain values (tuples become lists), for YAML and JSON."""
    return {
        f.name: _field_to_plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)
    }


def read_yaml(cls: type[T], path: str | Path, changes: Sequence[str] = ()) -> T:
    """Read a settings dataclass from a YAML file.

    Args:
        cls: the dataclass.
        path: the file.
        changes: "name=value" or "name.inner=value", the value as in YAML; a number among the names
            counts the items of a list, from 0.

    Raises:
        ConfigError: when the file cannot be read, is no mapping, or names an unknown setting.
    """
    return from_mapping(cls, read_values(path, changes))


def read_values(path: str | Path, changes: Sequence[str] = ()) -> Mapping[str, Any]:
    """Read the plain values of a YAML file; as `read_yaml`, before they become settings.

    Raises:
        ConfigError: when the file cannot be read or is no mapping.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeError, yaml.YAMLError) as cause:
        hint = "give a readable YAML file in UTF-8."
        raise ConfigError(f"cannot read settings from {path}: {cause}", hint) from cause
    if not isinstance(values, Mapping):
        found = "nothing" if values is None else type(values).__name__
        raise ConfigError(f"{path} holds {found}, not settings.", "write lines of `name: value`.")
    for change in changes:
        _change(values, change)
    return values


def to_yaml(settings: Any) -> str:
    """Write a settings dataclass as YAML text that `read_yaml` reads back equal."""
    return yaml.dump(to_mapping(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """Read YAML with the scalars of YAML 1.2, and no key twice: the first would go silently."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # the base class declares it so
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping as written: what is merged into it later, its own keys override."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            name = key.tag, key.value
            if name in lines:
                problem = (
                    f"{key.value!r} is written twice, first in line {lines[name] + 1}; keep one"
                )
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            lines[name] = key.start_mark.line
        return node


class _Dumper(yaml.SafeDumper):
    """Quote text that either version of YAML would read as something else."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Outside of double quotes these three read back as a blank or a line feed.
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _name, _pattern, _first in _YAML_SCALARS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, _first)


def _change(values: Any, change: str) -> None:
    """Set one value in nested mappings and lists, making mappings on the way."""
    place, is_pair, text = change.partition("=")
    *outer, last = place.split(".")
    wrong = ConfigError(f"the change {change!r} names no place of a setting.", "a.b=value")
    if not is_pair or not all((*outer, last)):
        raise wrong
    try:
        value = yaml.load(text, Loader=_Loader)
        for name in outer:
            values = values[int(name)] if isinstance(values, list) else values.setdefault(name, {})
        values[int(last) if isinstance(values, list) else last] = value
    except (yaml.YAMLError, ValueError, IndexError, AttributeError, TypeError) as cause:
        raise wrong from cause


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    no_default = field.default is dataclasses.MISSING
    return field.init and no_default and field.default_factory is dataclasses.MISSING


def _keyword(field: "dataclasses.Field[Any]") -> str:
    return field.metadata.get("keyword") or field.name


def _options(hint: object) -> tuple[object, ...]:
    is_union = get_origin(hint) in (Union, types.UnionType)
    return get_args(hint) if is_union else (hint,)


def _is_enum(option: object) -> bool:
    return isinstance(option, type) and issubclass(option, enum.Enum)


def _check_kind(name: str, value: object, hint: object) -> None:
    options = _options(hint)
    if not any(_fits(option, value) for option in options):
        allowed = ", ".join(_words(option) for option in options)
        raise ConfigError(f"{name} = {value!r}.", f"allowed: {allowed}.")


def _fits(option: Any, value: object) -> bool:
    """Say whether a value is of a kind; annotations this file does not know fit everything."""
    if option in _KIND_WORDS:
        return _fits_scalar(option, value)
    if get_origin(option) is Literal:
        return any(type(value) is type(arg) and value == arg for arg in get_args(option))
    if get_origin(option) is tuple:
        return isinstance(value, tuple) and _fits_items(get_args(option), value)
    if _is_enum(option) or dataclasses.is_dataclass(option):
        return isinstance(value, option)
    return True


def _fits_scalar(option: object, value: object) -> bool:
    if option is int or option is float:
        number = numbers.Integral if option is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, option)  # type: ignore[arg-type]  # bool, str or NoneType


def _fits_items(kinds: tuple[Any, ...], values: tuple[object, ...]) -> bool:
    each = kinds[:1] * len(values) if kinds[1:] == (...,) else kinds
    return len(each) == len(values) and all(
        any(_fits(option, value) for option in _options(kind))
        for kind, value in zip(each, values, strict=True)
    )


def _words(option: Any) -> str:
    if option in _KIND_WORDS:
        return _KIND_WORDS[option]
    if get_origin(option) is Literal:
        return ", ".join(repr(arg) for arg in get_args(option))
    if _is_enum(option):
        return ", ".join(repr(member.value) for member in option)
    if get_origin(option) is tuple:
        kinds = get_args(option)
        length = "" if kinds[1:] == (...,) else f"{len(kinds)} of "
        return f"a list ({length}{' or '.join(_words(o) for o in _options(kinds[0]))})"
    if dataclasses.is_dataclass(option):  # a class's name helps nobody who writes YAML
        return f"{{{', '.join(f'{field.name}: …' for field in dataclasses.fields(option))}}}"
    return str(getattr(option, "__name__", option))


def _check_range(field: "dataclasses.Field[Any]", value: object) -> None:
    limits = [
        (words, holds, field.metadata[key])
        for words, key, holds in _LIMITS
        if field.metadata.get(key) is not None
    ]
    unit = field.metadata.get("unit", "")
    hint = f"allowed: {', '.join(f'{words} {limit}' for words, _, limit in limits)} {unit}".strip()
    for item in value if isinstance(value, tuple) else (value,):
        if not isinstance(item, numbers.Real) or isinstance(item, bool):
            continue  # "auto" or None beside a number; the kind is checked already
        if not all(holds(item, limit) for _, holds, limit in limits):  # NaN holds nowhere
            raise ConfigError(f"{_keyword(field)} = {value!r}.", hint + ".")


def _plain_to_field(hint: Any, value: Any) -> Any:
    """Shape a plain value (mapping, list, str) as its annotation asks; leave what fits none."""
    options = _options(hint)
    if any(_fits(option, value) for option in options if _is_known(option)):
        return value
    for option in options:
        shaped = _shaped(option, value)
        if shaped is not value:
            return shaped
    return value


def _is_known(option: Any) -> bool:
    return (
        option in _KIND_WORDS or get_origin(option) is Literal or dataclasses.is_dataclass(option)
    )


def _shaped(option: Any, value: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(option, type) and dataclasses.is_dataclass(option):
        return from_mapping(option, value)
    if isinstance(value, str) and option in (Path, Fraction):
        return _parsed(option, value)
    if isinstance(value, str) and _is_enum(option):
        return next((member for member in option if member.value == value), value)
    if isinstance(value, list | tuple) and get_origin(option) is tuple:
        kinds = get_args(option)
        each = kinds[:1] * len(value) if kinds[1:] == (...,) else kinds
        if len(each) == len(value):
            return tuple(_plain_to_field(k, item) for k, item in zip(each, value, strict=True))
    return value


def _parsed(option: type[Path] | type[Fraction], text: str) -> Path | Fraction:
    try:
        return option(text)
    except (ValueError, ZeroDivisionError) as cause:
        raise ConfigError(f"{text!r} is no fraction.", "write it like 4/3.") from cause


def _field_to_plain(value: Any) -> Any:
    """Turn one value into what JSON and YAML know."""
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _field_to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_field_to_plain(item) for item in value]
    return _scalar_to_plain(value)


def _scalar_to_plain(value: Any) -> Any:
    if isinstance(value, Path | Fraction):
        return str(value)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):  # NumPy scalars too
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    return value
