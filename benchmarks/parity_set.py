"""A folder in the golden format → models, cases and tables, as plain values. Runs nothing.

A set is a folder with model folders (`config.json` in each) beside `cases/`: one `.npz` per case
and `.json` tables. Every case is read as a list of samples (prompts with their visuals); what is
compared of a sample is told apart from what is compared of the whole case by the keys' names. Keys
that nothing here knows are kept aside and reported, not refused.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]

MARK = "<image>"

# What a case is made from.
_INPUT_KEYS = frozenset(
    (
        "checkpoint",
        "config_overrides",
        "faster_token",
        "image_sizes_wh",
        "modalities",
        "prompt",
        "prompts",
    )
)
# What a later key needs beside itself, and what is written of one sample.
SAMPLE_KEYS = frozenset(
    (
        "greedy_margin",
        "greedy_margin_rep_penalty",
        "greedy_tokens",
        "greedy_tokens_rep_penalty",
        "logits_all",
        "logits_argmax",
        "logits_at_positions",
        "logits_last",
        "logits_logsumexp",
        "logits_margin",
        "logits_max",
        "logits_positions",
        "repetition_penalty",
        "seq_len",
    )
)
# What is written of all samples: of visuals one after another, of prompts as a padded batch.
CASE_KEYS = frozenset(
    (
        "attention_mask_in",
        "attention_mask_out",
        "feature_counts",
        "feature_starts",
        "input_ids",
        "inputs_embeds",
        "inputs_embeds_row_index",
        "inputs_embeds_row_mean",
        "inputs_embeds_rows",
        "inputs_embeds_shape",
        "pixel_sqsum",
        "pixel_sub",
        "pixel_sum",
        "pooled",
        "pooled_fast",
        "pooled_shape",
        "pooled_slow",
        "position_ids_explicit",
        "projected_frame0",
        "projected_row_index",
        "projected_row_mean",
        "projected_rows",
        "resized_u8_frame0",
        "spliced",
        "spliced_row_index",
        "spliced_row_mean",
        "spliced_rows",
        "vision_features_frame0",
    )
)
_PIXELS = re.compile(r"(frames|image)(?:_(\d+))?")
_SUFFIXED = re.compile(r"(.+)_(\d+)")


@dataclass(frozen=True, slots=True)
class Visual:
    """One video or picture: its kind and its frames (T, H, W, 3) uint8, T = 1 for a picture."""

    kind: Literal["video", "image"]
    frames: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt of a case, its visuals, and what the reference made of it alone."""

    prompt: str
    visuals: tuple[Visual, ...]
    expected: Arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One `.npz` of a set.

    Attributes:
        name: the file's stem.
        model: the model folder it belongs to; None for every one of the set.
        overrides: keys of config.json that differ for this case.
        samples: the prompts; several for a batch.
        expected: what is compared of all samples together.
        separator: (D,) the separator token, for a checkpoint that lacks it.
        unknown_keys: keys that nothing reads.
    """

    name: str
    model: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    expected: Arrays = field(default_factory=dict)
    separator: npt.NDArray[np.float32] | None = None
    unknown_keys: tuple[str, ...] = ()


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
    facts: Mapping[str, Mapping[str, Any]]


def read_set(folder: Path) -> GoldenSet:
    """Find what a folder holds.

    Raises:
        FileNotFoundError: no `cases/` in it, or no model beside it.
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


def cases_of(name: str, arrays: Arrays, facts: Mapping[str, Any] | None = None) -> list[Case]:
    """Sort the arrays of a case; keys that begin with "batch_" may be a second case in the file.

    Args:
        name: the case.
        arrays: as `read_arrays` gives them.
        facts: the case's entry of cases.json, for what the arrays do not say.

    Raises:
        ValueError: no prompt, or not as many visuals as marks.
    """
    plain = {key: array for key, array in arrays.items() if _plain(key) == key}
    batch = {_plain(key): array for key, array in arrays.items() if _plain(key) != key}
    if "prompts" not in batch or "prompt" not in plain:
        return [case_of(name, plain | batch, facts)]
    shared = {"config_overrides", "faster_token", "repetition_penalty"}
    inherited = {key: array for key, array in plain.items() if key in shared}
    both = (case_of(name, plain, facts), case_of(f"{name} (batch)", inherited | batch, facts))
    return list(both)


def case_of(name: str, arrays: Arrays, facts: Mapping[str, Any] | None = None) -> Case:
    """Sort arrays that are one case; as `cases_of`."""
    facts = facts or {}
    prompts = _prompts(arrays, facts)
    visuals = iter(_visuals(arrays))
    expected: list[Arrays] = [{} for _ in prompts]
    of_case: Arrays = {}
    unknown: list[str] = []
    for key, array in arrays.items():
        found = _place(key, array, len(prompts))
        if found is None:
            unknown.append(key)
        elif found == "case":
            of_case[key] = array
        elif isinstance(found, int):
            expected[found][_SUFFIXED.sub(r"\1", key)] = array
        elif found == "samples":
            for idx, own in enumerate(_rows_of(key, array, arrays, len(prompts))):
                expected[idx][key] = own
    samples = tuple(
        Sample(prompt, tuple(_taken(visuals, prompt, name)), own)
        for prompt, own in zip(prompts, expected, strict=True)
    )
    if next(visuals, None) is not None:
        raise ValueError(f"{name} has more visuals than {MARK} marks.")
    return Case(
        name=name,
        model=_text(arrays, facts, "checkpoint"),
        overrides=_overrides(arrays, facts),
        samples=samples,
        expected=of_case,
        separator=arrays.get("faster_token"),
        unknown_keys=tuple(unknown),
    )


def _plain(key: str) -> str:
    """Return a key without the "batch_" that some sets write before a known one."""
    rest = key.removeprefix("batch_")
    known = _INPUT_KEYS | SAMPLE_KEYS | CASE_KEYS
    is_known = rest in known or _SUFFIXED.sub(r"\1", rest) in known or _PIXELS.fullmatch(rest)
    return rest if is_known else key


def _place(key: str, array: npt.NDArray[Any], num_samples: int) -> int | str | None:
    """Say whose a key is: "input", "case", "samples" (one row each), a sample's index, or None."""
    if key in _INPUT_KEYS or _PIXELS.fullmatch(key):
        return "input"
    if key in CASE_KEYS:
        return "case"
    if key in SAMPLE_KEYS:
        has_rows = num_samples == 1 or array.ndim == 0 or len(array) == num_samples
        return "samples" if has_rows else None
    suffixed = _SUFFIXED.fullmatch(key)
    if suffixed and suffixed[1] in SAMPLE_KEYS and int(suffixed[2]) < num_samples:
        return int(suffixed[2])
    return None


def _rows_of(
    key: str, array: npt.NDArray[Any], arrays: Arrays, num_samples: int
) -> list[npt.NDArray[Any]]:
    """Give each sample its part of an array, without the padding of the batch."""
    if num_samples == 1 or array.ndim == 0:
        return [array] * num_samples
    mask = arrays.get("attention_mask_out")
    padded = mask is not None and array.ndim > 1 and array.shape[1] == mask.shape[1]
    if not padded or mask is None or key.startswith("greedy"):
        return list(array)
    return [row[own] for row, own in zip(array, mask.astype(bool), strict=True)]


def _prompts(arrays: Arrays, facts: Mapping[str, Any]) -> list[str]:
    if "prompts" in arrays:
        return [str(prompt) for prompt in arrays["prompts"]]
    prompt = _text(arrays, facts, "prompt")
    if prompt is None:
        raise ValueError("the case has no prompt.")
    return [prompt]


def _visuals(arrays: Arrays) -> list[Visual]:
    """List the visuals in the order of their marks.

    The n-th "image" of `modalities` is the n-th `image_*` by number, the n-th "video" the n-th
    `frames*`, so that arrays may be numbered by visual or by kind.
    """
    found: dict[str, list[tuple[int, npt.NDArray[np.uint8]]]] = {"image": [], "video": []}
    for key, array in arrays.items():
        match = _PIXELS.fullmatch(key)
        if match:
            kind = "image" if match[1] == "image" else "video"
            found[kind].append((int(match[2] or -1), array))
    queues = {kind: iter(sorted(items, key=lambda item: item[0])) for kind, items in found.items()}
    kinds = json.loads(str(arrays["modalities"])) if "modalities" in arrays else None
    if kinds is None:
        kinds = ["image"] * len(found["image"]) + ["video"] * len(found["video"])
    visuals = []
    for kind in kinds:
        _, frames = next(queues[kind], (0, None))
        if frames is None:
            raise ValueError(f"modalities names more {kind}s than there are arrays.")
        visuals.append(Visual(kind, frames[None] if frames.ndim == 3 else frames))
    return visuals


def _taken(visuals: Any, prompt: str, name: str) -> list[Visual]:
    taken = []
    for _ in range(prompt.count(MARK)):
        visual = next(visuals, None)
        if visual is None:
            raise ValueError(f"{name} has more {MARK} marks than visuals.")
        taken.append(visual)
    return taken


def _text(arrays: Arrays, facts: Mapping[str, Any], key: str) -> str | None:
    if key in arrays:
        return str(arrays[key])
    return None if facts.get(key) is None else str(facts[key])


def _overrides(arrays: Arrays, facts: Mapping[str, Any]) -> dict[str, Any]:
    if "config_overrides" in arrays:
        return dict(json.loads(str(arrays["config_overrides"])))
    return dict(facts.get("config_overrides") or {})
