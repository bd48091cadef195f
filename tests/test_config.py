"""Settings are checked where they are made, and mean the same in Python, YAML and JSON."""

import dataclasses
import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from llava_video.config import (
    check,
    from_mapping,
    read_values,
    read_yaml,
    setting,
    to_mapping,
    to_yaml,
)
from llava_video.errors import ConfigError


class Where(enum.StrEnum):
    ROW = "row"
    FRAME = "frame"


@dataclass(frozen=True, slots=True)
class Cells:
    rows: int
    cols: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    pool_stride: int | None = setting(
        None, "Side reduction.", unit="patches", at_least=1, at_most=4
    )
    rate_hz: float = setting(1.0, "Frames a second.", unit="Hz", above=0.0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    grid: Literal["auto", "off"] | Cells | None = setting("auto", "Tiles.")
    where: Where | None = setting(None, "Where the newline stands.")
    loop: bool = setting(True, "Whether to guard against loops.")
    name: str = setting("", "What to call it.")
    stop: tuple[str, ...] = setting((), "Strings that end it.")
    times_s: tuple[float, ...] | None = setting(None, "Explicit times.", unit="s", at_least=0)
    cells: Literal["all"] | tuple[Cells, ...] = setting("all", "Nested tuples of dataclasses.")
    crop: tuple[int, int, int, int] = setting((0, 1, 0, 1), "A window.")
    wheres: tuple[tuple[Where, int], ...] = setting((), "Enums two tuples deep.")
    aspect: Fraction = setting(Fraction(1), "Width over height.")
    folder: Path = setting(Path(), "Where to.")
    schema: Mapping[str, Any] | None = setting(None, "Anything.")
    inner: Inner = setting(Inner(), "Another stage.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    start_s: float | None = setting(None, "First moment.", unit="s", at_least=0, keyword="start")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A value without checks of its own, as plans are; `name` has no default."""

    name: str
    cells: Cells
    wheres: tuple[Where, ...] = ()
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


FULL = Outer(
    grid=Cells(2, 3),
    where=Where.FRAME,
    loop=False,
    name="off",
    stop=("no", "1e5", "\n", "\x85", "a\u2028b", "2024-01-01", "010"),
    times_s=(0.0, 1e-5),
    cells=(Cells(1, 2), Cells(3, 4)),
    crop=(1, 2, 3, 4),
    wheres=((Where.ROW, 1), (Where.FRAME, 2)),
    aspect=Fraction(16, 15),
    folder=Path("a/b"),
    schema={"type": "object", "required": ["x"]},
    inner=Inner(pool_stride=3, rate_hz=0.5),
)


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def fails(**values: Any) -> ConfigError:
    """Return the error of Outer(**values), or of Inner when it has that field."""
    cls = Inner if set(values) <= {"pool_stride", "rate_hz"} else Outer
    with pytest.raises(ConfigError) as caught:
        cls(**values)
    return caught.value


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("pool_stride", 0, "allowed: at least 1, at most 4 patches."),
        ("pool_stride", 5, "allowed: at least 1, at most 4 patches."),
        ("pool_stride", 2.0, "allowed: a whole number, None."),
        ("pool_stride", "2", "allowed: a whole number, None."),
        ("pool_stride", True, "allowed: a whole number, None."),
        ("rate_hz", 0, "allowed: above 0.0 Hz."),
        ("rate_hz", float("nan"), "allowed: above 0.0 Hz."),
        ("rate_hz", None, "allowed: a number."),
        ("grid", "of", "allowed: 'auto', 'off', {rows: …, cols: …}, None."),
        ("grid", False, "allowed: 'auto', 'off', {rows: …, cols: …}, None."),
        ("where", "clip", "allowed: 'row', 'frame', None."),
        ("loop", 1, "allowed: true or false."),
        ("name", 3, "allowed: text."),
        ("stop", ".", "allowed: a list (text)."),
        ("stop", (".", 1), "allowed: a list (text)."),
        ("times_s", (1.0, -0.5), "allowed: at least 0 s."),
        ("crop", (1, 2, 3), "allowed: a list (4 of a whole number)."),
        ("inner", None, "allowed: {pool_stride: …, rate_hz: …}."),
    ],
)
def test_bad_values_say_what_is_allowed(name: str, value: object, hint: str):
    error = fails(**{name: value})
    assert error.message == f"{name} = {value!r}."
    assert error.hint == hint


@pytest.mark.parametrize(
    ("name", "value"),
    [("pool_stride", 1), ("pool_stride", 4), ("pool_stride", None), ("rate_hz", 1e-9)],
)
def test_values_at_the_limits_are_allowed(name: str, value: object):
    assert getattr(Inner(**{name: value}), name) == value


def test_numpy_numbers_are_numbers():
    inner = Inner(pool_stride=np.int64(2), rate_hz=np.float32(0.5))
    plain = to_mapping(inner)
    assert plain == {"pool_stride": 2, "rate_hz": 0.5}
    assert [type(v) for v in plain.values()] == [int, float]


def test_lists_and_the_words_of_enums_are_brought_to_their_kind():
    outer = Outer(
        stop=["a", "b"], where="row", wheres=[["frame", 1]], cells=[{"rows": 1, "cols": 2}]
    )
    assert outer.stop == ("a", "b")
    assert outer.where is Where.ROW
    assert outer.wheres == ((Where.FRAME, 1),)
    assert outer.cells == (Cells(1, 2),)
    assert hash(Outer(stop=["a"])) == hash(Outer(stop=("a",)))


def test_every_field_is_documented():
    for field in dataclasses.fields(Outer):
        assert field.metadata["doc"].endswith(".")
    field = Inner.__dataclass_fields__["pool_stride"]
    assert field.default is None
    assert {k: field.metadata[k] for k in ("unit", "at_least", "at_most", "above")} == {
        "unit": "patches",
        "at_least": 1,
        "at_most": 4,
        "above": None,
    }


@pytest.mark.parametrize("settings", [FULL, Outer()], ids=["full", "default"])
def test_yaml_and_json_round_trip(settings: Outer, yaml_file: Path):
    yaml_file.write_text(to_yaml(settings), encoding="utf-8")
    assert read_yaml(Outer, yaml_file) == settings
    assert from_mapping(Outer, json.loads(json.dumps(to_mapping(settings)))) == settings


def test_round_trip_keeps_kinds():
    back = from_mapping(Outer, json.loads(json.dumps(to_mapping(FULL))))
    assert isinstance(back.wheres[0][0], Where)  # a StrEnum equals its word, so == is not enough
    assert isinstance(back.where, Where)
    assert isinstance(back.folder, Path)
    assert isinstance(back.aspect, Fraction)
    result = Result(name="r", cells=Cells(1, 2), wheres=(Where.ROW,), counts={"a": 1})
    again = from_mapping(Result, to_mapping(result))
    assert again == result
    assert isinstance(again.wheres[0], Where)


def test_yaml_reads_words_as_words_and_numbers_as_numbers(yaml_file: Path):
    yaml_file.write_text(
        "grid: off\nname: yes\nstop: [no, 1:30, 2024-01-01]\ntimes_s: [1e-3, 5, .5]\n"
        "loop: false\nwhere: row\ninner:\n  rate_hz: 2\n  pool_stride: null\n"
    )
    settings = read_yaml(Outer, yaml_file)
    assert (settings.grid, settings.name, settings.loop) == ("off", "yes", False)
    assert settings.stop == ("no", "1:30", "2024-01-01")
    assert settings.times_s == (0.001, 5, 0.5)
    assert settings.inner == Inner(rate_hz=2)


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"grib": "auto"}, "Outer has no setting 'grib'", "did you mean grid?"),
        ({"inner": {"pol_stride": 2}}, "Inner has no setting 'pol_stride'", "pool_stride?"),
        ({"xyz": 1}, "Outer has no setting 'xyz'", "known: aspect, cells, crop"),
        ({3: 1}, "Outer has no setting 3", "known: "),
        ({"inner": {"pool_stride": 9}}, "pool_stride = 9", "at most 4"),
        ({"inner": 3}, "inner = 3", "allowed: {pool_stride: …"),
        ({"where": "clip"}, "where = 'clip'", "allowed: 'row', 'frame'"),
        ({"aspect": "4/0"}, "'4/0' is no fraction", "4/3"),
    ],
)
def test_bad_mappings(values: dict[Any, Any], message: str, hint: str):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        from_mapping(Outer, values)
    assert hint in caught.value.hint


def test_missing_and_mistaken_values_of_a_value_without_checks():
    with pytest.raises(ConfigError, match="Result lacks name, cells"):
        from_mapping(Result, {"wheres": []})
    with pytest.raises(ConfigError, match=r"name = 3\.  hint: allowed: text"):
        from_mapping(Result, {"name": 3, "cells": {"rows": 1, "cols": 2}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds nothing"),
        (b"- 1\n", "holds list"),
        (b"grid: [", "cannot read settings"),
        (b"\xff\xfe\x00", "cannot read settings"),
        (b"a: !!python/object:os.system {}", "cannot read settings"),
    ],
)
def test_bad_yaml_files(yaml_file: Path, content: bytes, message: str):
    yaml_file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(Outer, yaml_file)
    assert str(yaml_file) in str(caught.value)
    assert caught.value.hint


def test_numbers_have_an_end_where_that_is_asked(yaml_file: Path):
    endless = Inner(rate_hz=float("inf"))
    check(endless)
    with pytest.raises(ConfigError, match=r"rate_hz = inf\.  hint: allowed: a finite number"):
        check(endless, is_finite=True)


def test_a_missing_yaml_file(yaml_file: Path):
    with pytest.raises(ConfigError, match="No such file"):
        read_yaml(Outer, yaml_file)


outers = st.builds(
    Outer,
    grid=st.sampled_from(["auto", "off", None]) | st.builds(Cells, st.integers(), st.integers()),
    where=st.sampled_from([None, *Where]),
    loop=st.booleans(),
    name=st.text(),
    stop=st.lists(st.text()),
    times_s=st.none() | st.lists(st.floats(0, allow_nan=False)),
    cells=st.just("all") | st.lists(st.builds(Cells, st.integers(), st.integers()), max_size=3),
    wheres=st.lists(st.tuples(st.sampled_from(Where), st.integers()), max_size=3),
    aspect=st.fractions(),
    inner=st.builds(Inner, rate_hz=st.floats(0, exclude_min=True, allow_nan=False)),
)


@pytest.mark.parametrize("value", [-1.0, "soon"])
def test_messages_say_what_users_call_it(value: object):
    with pytest.raises(ConfigError, match=f"^start = {value!r}"):
        Renamed(start_s=value)  # type: ignore[arg-type]  # what a caller may hand over
    assert to_mapping(Renamed(start_s=1.0)) == {"start_s": 1.0}


def round_trips(folder: Path, settings: Outer) -> None:
    path = folder / "any.yaml"
    path.write_text(to_yaml(settings), encoding="utf-8")
    assert read_yaml(Outer, path) == settings
    assert from_mapping(Outer, json.loads(json.dumps(to_mapping(settings)))) == settings


@given(settings=outers)
@examples(max_examples=50)
def test_any_settings_round_trip(tmp_path_factory: pytest.TempPathFactory, settings: Outer):
    round_trips(tmp_path_factory.getbasetemp(), settings)


@pytest.mark.slow
@given(settings=outers)
@examples(max_examples=1000)
def test_many_settings_round_trip(tmp_path_factory: pytest.TempPathFactory, settings: Outer):
    round_trips(tmp_path_factory.getbasetemp(), settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nest:
    inner: Inner = setting(Inner(), "Inside.")
    inners: tuple[Inner, ...] = setting((), "Several.")
    name: str = setting("", "What to call it.")


def test_a_file_is_read_with_changes(tmp_path: Path):
    path = tmp_path / "nest.yaml"
    path.write_text("name: a\ninners: [{rate_hz: 2}, {rate_hz: 3}]\n", encoding="utf-8")
    changes = ["name=b=c", "inner.rate_hz=1e-3", "inners.1.pool_stride=4"]
    assert read_yaml(Nest, path, changes) == Nest(
        name="b=c",
        inner=Inner(rate_hz=1e-3),
        inners=(Inner(rate_hz=2), Inner(rate_hz=3, pool_stride=4)),
    )
    with pytest.raises(ConfigError, match="pool_strid") as caught:
        read_yaml(Nest, path, ["inner.pool_strid=4"])
    assert "pool_stride" in caught.value.hint


@pytest.mark.parametrize(
    "change", ["name", "=1", ".name=1", "inners.2.rate_hz=1", "inners.x=1", "name.x=1", "name=[1"]
)
def test_changes_of_nothing_are_refused(tmp_path: Path, change: str):
    path = tmp_path / "nest.yaml"
    path.write_text("name: a\ninners: [{rate_hz: 2}]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="names no place"):
        read_yaml(Nest, path, [change])


def test_plain_values_are_read_before_they_are_settings(tmp_path: Path):
    path = tmp_path / "any.yaml"
    path.write_text("a: {b: off}\nunknown: [1, 1e-5]\n")
    assert read_values(path, ["a.c=2"]) == {"a": {"b": "off", "c": 2}, "unknown": [1, 1e-5]}
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="holds list, not settings"):
        read_values(path)
