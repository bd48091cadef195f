"""A folder in the golden format → its models, cases and tables, as plain values. Runs nothing.

A set is a folder with model folders (`config.json` in each) beside `cases/`: one `.npz` per case
and `.json` tables. `cases.json` beside `cases/` may say of single cases what their arrays do not:
the checkpoint, what it lies over, the prompt, whose picture it takes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from parity_case import INPUT_KEYS, PIXELS
from parity_checks import CLOSE_LOGITS_LIMIT, LOGITS_LIMIT
from parity_keys import Arrays

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSet:
    """A folder in the golden format.

    Attributes:
        folder: the set.
        models: folders of checkpoints, by name.
        cases: paths of the `.npz` files, by stem.
        tables: contents of the `.json` files of `cases/`, by stem.
        facts: what `cases.json` beside `cases/` says of single cases, by case; {} without it.
    """

    folder: Path
    models: Mapping[str, Path]
    cases: Mapping[str, Path]
    tables: Mapping[str, Any]
    facts: Mapping[str, Facts]

    @property
    def logits_limit(self) -> float:
        """The largest error of a logit: sets with `cases.json` come from milder weights."""
        return CLOSE_LOGITS_LIMIT if self.facts else LOGITS_LIMIT

    @property
    def tested(self) -> dict[str, Path]:
        """The models that cases are run on: no bases and towers that only others consist of."""
        own = {facts.get("checkpoint") for facts in self.facts.values()}
        parts = {facts.get("base") for facts in self.facts.values()} - own
        for folder in self.models.values():
            values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            parts.add(values.get("mm_vision_tower"))
        return {name: folder for name, folder in self.models.items() if name not in parts}

    def base_of(self, model: str) -> Path | None:
        """Return the folder a model's own lies over, by what the cases say; None for whole ones.

        Raises:
            ValueError: its cases name several, or one that is not here.
        """
        bases = {
            str(facts["base"])
            for facts in self.facts.values()
            if facts.get("checkpoint") == model and facts.get("base") is not None
        }
        if not bases:
            return None
        if len(bases) > 1 or not bases <= set(self.models):
            raise ValueError(f"{model} lies over {', '.join(sorted(bases))}; one folder is needed.")
        return self.models[bases.pop()]

    def arrays_of(self, case: str) -> Arrays:
        """Read a case's arrays, and the inputs that its facts say are another's.

        Raises:
            ValueError: it names a case that is not here, or is not here itself.
        """
        if case not in self.cases:
            raise ValueError(f"cases.json names it, and there is no cases/{case}.npz.")
        arrays = read_arrays(self.cases[case])
        facts = self.facts.get(case, {})
        for key, taken in (("inputs_from", INPUT_KEYS), ("picture_from", frozenset[str]())):
            if key in facts:
                if facts[key] not in self.cases:
                    raise ValueError(f"{key} is {facts[key]!r}, and there is no such case.")
                arrays = _inputs(read_arrays(self.cases[facts[key]]), taken) | arrays
        if not any(PIXELS.fullmatch(key) for key in arrays):
            for word in re.findall(r"\w+", str(facts.get("remark", ""))):
                if word in self.cases and word != case:
                    arrays = _inputs(read_arrays(self.cases[word]), frozenset()) | arrays
        return arrays


def read_set(folder: Path) -> GoldenSet:
    """Find what a folder holds.

    Raises:
        FileNotFoundError: no `cases/` in it, or no model beside it.
        ValueError: a `.json` file is none.
    """
    models = {path.parent.name: path.parent for path in sorted(folder.glob("*/config.json"))}
    if not (folder / "cases").is_dir() or not models:
        raise FileNotFoundError(f"{folder} has no cases/ with model folders beside it.")
    facts = folder / "cases.json"
    return GoldenSet(
        folder=folder,
        models=models,
        cases={path.stem: path for path in sorted((folder / "cases").glob("*.npz"))},
        tables={
            path.stem: json.loads(path.read_text(encoding="utf-8"))
            for path in sorted((folder / "cases").glob("*.json"))
        },
        facts=json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {},
    )


def read_arrays(path: Path) -> Arrays:
    """Read every array of a case; pickled objects are refused."""
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def _inputs(arrays: Arrays, keys: frozenset[str]) -> Arrays:
    return {key: array for key, array in arrays.items() if key in keys or PIXELS.fullmatch(key)}
