"""Whatever a set stores, a change of it is noticed: key by key, fact by fact, table by table.

The stages of a case are computed once; then each of its arrays is changed in turn and compared
again. Of LLaVA-Mini, which no other library has, the self-contained set holds our own outputs: what
is tested here is not that they are right, but that none of them goes unread.
"""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import family_maker
import numpy as np
import pytest
from own_set import write_fused_set
from parity_case import INPUT_KEYS, PIXELS, cases_of
from parity_checks import Findings
from parity_model import Candidate, candidate
from parity_plan import FACTS
from parity_run import SampleRun
from parity_set import GoldenSet, read_arrays, read_set
from parity_stages import compare_case
from parity_tables import kind_of, rows_of

GOLDEN = ("golden/family", "golden/onevision_video")
# Of a table's rows: what they are made from, and what says nothing.
GIVEN = frozenset(
    (
        "avg_fps",
        "conversations",
        "error",
        "force_sample",
        "fps",
        "height",
        "history",
        "image_aspect_ratio",
        "limit",
        "max_frames",
        "pinpoints_wh",
        "roles",
        "sample",
        "size_wh",
        "template",
        "total",
        "total_frames",
        "user",
        "want",
        "width",
    )
)


class Bench:
    """The cases of a set on the model each belongs to, their stages kept."""

    def __init__(self, folder: Path) -> None:
        self.golden: GoldenSet = read_set(folder)
        self.models: dict[str, Candidate] = {}

    def model_of(self, name: str) -> Candidate:
        arrays = self.golden.arrays_of(name)
        told = arrays.get("checkpoint", self.golden.facts.get(name, {}).get("checkpoint"))
        model = next(iter(self.golden.models)) if told is None else str(told)
        if model not in self.models:
            base = self.golden.base_of(model)
            self.models[model] = candidate(model, self.golden.models, base)
        return self.models[model]

    def failures(
        self,
        name: str,
        arrays: Mapping[str, Any],
        facts: Mapping[str, Any],
        kept: dict[str, list[SampleRun]] | None = None,
    ) -> list[str]:
        """Return the keys of a case that differ; stages of `kept` runs are not computed again."""
        model, found = self.model_of(name), Findings("model", name)
        for case in cases_of(name, dict(arrays), facts):
            config = model.config_with(case.overrides)
            weights = model.model_with(config, case.separator, "cpu")
            runs = [SampleRun(one, weights, model, config) for one in case.samples]
            if kept is not None:
                runs = kept.setdefault(case.name, runs)
                for run, sample in zip(runs, case.samples, strict=True):
                    run.sample = sample
            compare_case(found, case, runs, weights, config, self.golden.logits_limit)
        return [check.key for check in found.checks if not check.passed]


def unnoticed(folder: Path, names: list[str] | None = None) -> Iterator[str]:
    """Yield every array and fact whose change makes no difference."""
    bench = Bench(folder)
    for name in names or [name for name in bench.golden.cases if name != "pooling"]:
        arrays, facts = bench.golden.arrays_of(name), bench.golden.facts.get(name, {})
        kept: dict[str, list[SampleRun]] = {}
        has_text = TEXTS & {*arrays, *facts}
        given = GIVEN_ARRAYS if has_text else GIVEN_ARRAYS | {"input_ids"}
        assert bench.failures(name, arrays, facts, kept) == []
        for key in read_arrays(bench.golden.cases[name]):
            if key in IGNORED:
                continue
            changes = {**arrays, key: changed(key, arrays[key])}
            is_given = key in given or PIXELS.fullmatch(key)
            if not refused_or(bench, name, changes, facts, None if is_given else kept):
                yield f"{name}: {key}"
        for key in set(facts) & set(FACTS):
            changes = {**facts, key: changed_value(facts[key])}
            if not refused_or(bench, name, arrays, changes, kept):
                yield f"{name}: {key} of cases.json"


def refused_or(bench: Bench, *arguments: Any) -> bool:
    """Say whether a changed case is refused, or differs."""
    try:
        return bool(bench.failures(*arguments))
    except (ValueError, IndexError, RuntimeError):
        return True


# Arrays that the stages are made from. Sizes of pictures are those of the pictures; a penalty of
# one sample stands beside its tokens.
GIVEN_ARRAYS = INPUT_KEYS - {"attention_mask", "input_ids"} | {"labels", "repetition_penalty"}
TEXTS = frozenset(("batch_prompts", "conversations", "prompt", "prompts"))
IGNORED = frozenset(("checkpoint", "image_sizes_wh", "modalities"))


def changed(key: str, array: np.ndarray) -> np.ndarray:
    """Change one element by some limits; of pixels all, of words one letter."""
    array = array.copy()
    if PIXELS.fullmatch(key):
        return array ^ 32
    if key == "config_overrides":
        return np.array('{"rms_norm_eps": 0.1}')
    if key == "repetition_penalty":
        return np.ones_like(array)
    if array.dtype.kind == "U":
        return np.char.add(array, "?")
    flat = array.reshape(-1)
    at = 0
    if key == "labels":
        at = np.flatnonzero(flat != -100)[-1]
    elif key == "pooled_shape":
        at = -1  # how often the reference pools is its own affair
    if array.dtype == bool:
        flat[at] = not flat[at]
    else:
        flat[at] += 1 if array.dtype.kind in "iu" else 5e-3
    return array


def changed_value(value: Any) -> Any:
    """Change a JSON value: a number, a letter, the first of a list."""
    if isinstance(value, list):
        return [changed_value(value[0]), *value[1:]]
    if isinstance(value, str):
        return value + "?"
    return not value if isinstance(value, bool) else value + 1


@pytest.mark.parametrize("kind", family_maker.KINDS)
def test_every_key_of_transformers_outputs(tmp_path: Path, kind: str):
    family_maker.make_family_set(tmp_path, kind, range(2, 3))
    assert list(unnoticed(tmp_path, ["seed2"])) == []


def test_every_key_of_a_fused_model(tmp_path: Path):
    write_fused_set(tmp_path)
    assert list(unnoticed(tmp_path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_every_key_and_fact_of_the_golden_sets(shared: Path, name: str):
    assert list(unnoticed(shared / name)) == []


@pytest.mark.parametrize("name", GOLDEN)
def test_every_column_of_the_tables(shared: Path, name: str):
    """Change a value of every column that is not given, in each row that has it."""
    bench = Bench(shared / name)
    candidates = [
        candidate(model, bench.golden.models, bench.golden.base_of(model))
        for model in bench.golden.models
    ]
    for table_name, table in bench.golden.tables.items():
        kind = kind_of(table)
        rows = list(rows_of(table))
        columns = {key for row in rows for key in row} - GIVEN
        assert columns
        for key in columns:
            noticed = [
                row_is_read(kind, candidates, rows, idx, key)
                for idx, row in enumerate(rows)
                if row.get(key) and "error" not in row
            ]
            assert any(noticed), (table_name, key)


def row_is_read(
    kind: Any, candidates: list[Candidate], rows: list[Any], idx: int, key: str
) -> bool:
    """Say whether every model the table is asked of differs by a changed value."""
    changes = copy.deepcopy(rows)
    changes[idx] = {**rows[idx], key: changed_value(rows[idx][key])}
    noticed = []
    for model in kind.models(candidates):
        found = Findings("model", "table")
        kind.compare(found, model, changes)
        noticed.append(any(not check.passed for check in found.checks))
    return all(noticed)
