"""The arrays and facts of a case → prompts with their visuals, and what the reference made of them.

Every case is read as a list of samples (prompts with their visuals); what is compared of a sample
is told apart from what is compared of the whole case by the keys' names. Keys that nothing here
knows are kept aside and reported, not refused. Opens no file and runs nothing.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from parity_keys import SAME_WORDS, Arrays, read_key

MARK = "<image>"
MARK_ID = -200

# What a case is made from, and what one takes that has another's inputs.
INPUT_KEYS = frozenset(
    (
        "attention_mask",
        "config_overrides",
        "faster_token",
        "image_sizes_wh",
        "input_ids",
        "modalities",
        "prompt",
        "prompts",
    )
)
_MADE_FROM = frozenset(
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
# What is written of one sample, beside the logits' rows, and what a later key needs beside itself.
SAMPLE_KEYS = frozenset(
    (
        "greedy_margin",
        "greedy_margin_rep_penalty",
        "greedy_tokens",
        "greedy_tokens_rep_penalty",
        "labels",
        "logit_positions",
        "logits_argmax",
        "logits_at_positions",
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
        "expanded_len",
        "feature_counts",
        "feature_starts",
        "frame_indices",
        "input_ids",
        "inputs_embeds_row_index",
        "inputs_embeds_shape",
        "lengths",
        "loss",
        "loss_first_row",
        "pixel_sqsum",
        "pixel_sub",
        "pixel_sum",
        "pooled_fast",
        "pooled_shape",
        "pooled_slow",
        "position_ids_explicit",
        "projected_row_index",
        "spliced_row_index",
        "tile_means",
    )
)
# What cases.json says that a case is made from; the rest is compared, see `FACTS` of parity_plan.
_FACT_INPUTS = frozenset(
    (
        "base",
        "checkpoint",
        "config_overrides",
        "conversations",
        "inputs_from",
        "overrides",
        "picture_from",
        "prompt",
        "remark",
    )
)
PIXELS = re.compile(r"(frames|image)(?:_(\d+))?")
_SUFFIXED = re.compile(r"(.+)_(\d+)")
# How a remark says that pictures are handled otherwise than config.json has it.
_REMARKED = ((re.compile(r"cent(?:re|er)[- ]crop"), {"image_aspect_ratio": "square"}),)


@dataclass(frozen=True, slots=True)
class Visual:
    """One video or picture: its kind and its frames (T, H, W, 3) uint8, T = 1 for a picture."""

    kind: Literal["video", "image"]
    frames: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One prompt of a case, its visuals, and what the reference made of it alone.

    Attributes:
        prompt: its text; None where the case is a conversation to learn from, or only ids.
        conversation: the messages of a data file; () where it is none.
        ids: its ids as stored, padding included; for a case without a text.
        visuals: one per mark.
        expected: by key, without the index of the sample.
    """

    prompt: str | None = None
    conversation: tuple[Mapping[str, Any], ...] = ()
    ids: tuple[int, ...] = ()
    visuals: tuple[Visual, ...] = ()
    expected: Arrays = field(default_factory=dict)

    @property
    def num_marks(self) -> int:
        """Visuals it has a place for."""
        texts = [str(turn.get("value")) for turn in self.conversation]
        if self.prompt is not None:
            texts.append(self.prompt)
        return sum(text.count(MARK) for text in texts) or self.ids.count(MARK_ID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One `.npz` of a set.

    Attributes:
        name: the file's stem.
        model: the model folder it belongs to; None for every one of the set.
        overrides: keys of config.json that differ for this case.
        samples: the prompts; several for a batch.
        expected: what is compared of all samples together.
        facts: what cases.json states of it that is compared.
        separator: (D,) the separator token, for a checkpoint that lacks it.
        unknown_keys: keys that nothing reads.
    """

    name: str
    model: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    expected: Arrays = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    separator: npt.NDArray[np.float32] | None = None
    unknown_keys: tuple[str, ...] = ()


def cases_of(name: str, arrays: Arrays, facts: Mapping[str, Any] | None = None) -> list[Case]:
    """Sort the arrays of a case; keys that begin with "batch_" may be a second case in the file.

    Args:
        name: the case.
        arrays: its arrays, and those it takes from another.
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
    texts = _texts(arrays, facts)
    visuals = iter(_visuals(arrays))
    expected: list[Arrays] = [{} for _ in texts]
    of_case: Arrays = {}
    unknown: list[str] = []
    for key, array in arrays.items():
        found = _place(key, array, len(texts))
        if found is None:
            unknown.append(key)
        elif found == "case":
            of_case[key] = array
        elif isinstance(found, int):
            expected[found][_SUFFIXED.sub(r"\1", key)] = array
        elif found == "samples":
            for idx, own in enumerate(_rows_of(key, array, arrays, len(texts))):
                expected[idx][key] = own
    if texts[0].ids:
        of_case.pop("input_ids")  # they are what the case is made from
    samples = tuple(
        Sample(
            prompt=text.prompt,
            conversation=text.conversation,
            ids=text.ids,
            visuals=tuple(_taken(visuals, text.num_marks, name)),
            expected=own,
        )
        for text, own in zip(texts, expected, strict=True)
    )
    if next(visuals, None) is not None:
        raise ValueError(f"{name} has more visuals than {MARK} marks.")
    return Case(
        name=name,
        model=_text(arrays, facts, "checkpoint"),
        overrides=_overrides(arrays, facts),
        samples=samples,
        expected=of_case,
        facts={key: value for key, value in facts.items() if key not in _FACT_INPUTS},
        separator=arrays.get("faster_token"),
        unknown_keys=tuple(unknown),
    )


def _plain(key: str) -> str:
    """Return a key without the "batch_" that some sets write before a known one."""
    rest = key.removeprefix("batch_")
    known = _MADE_FROM | SAMPLE_KEYS | CASE_KEYS
    bare = _SUFFIXED.sub(r"\1", rest)
    is_known = {rest, bare} & known or read_key(rest) or read_key(bare) or PIXELS.fullmatch(rest)
    return rest if is_known else key


def _place(key: str, array: npt.NDArray[Any], num_samples: int) -> int | str | None:
    """Say whose a key is: "input", "case", "samples" (one row each), a sample's index, or None."""
    if key in _MADE_FROM or PIXELS.fullmatch(key):
        return "input"
    if _is_of_sample(key):
        has_rows = num_samples == 1 or array.ndim == 0 or len(array) == num_samples
        return "samples" if has_rows else None
    if SAME_WORDS.get(key, key) in CASE_KEYS or read_key(key):
        return "case"
    suffixed = _SUFFIXED.fullmatch(key)
    if suffixed and _is_of_sample(suffixed[1]) and int(suffixed[2]) < num_samples:
        return int(suffixed[2])
    return None


def _is_of_sample(key: str) -> bool:
    word = read_key(key)
    return SAME_WORDS.get(key, key) in SAMPLE_KEYS or (
        word is not None and word.quantity == "logits"
    )


def _rows_of(
    key: str, array: npt.NDArray[Any], arrays: Arrays, num_samples: int
) -> list[npt.NDArray[Any]]:
    """Give each sample its part of an array, without the padding of the batch."""
    if num_samples == 1 or array.ndim == 0:
        return [array] * num_samples
    mask = arrays.get("attention_mask_out", arrays.get("expanded_attention_mask"))
    word = read_key(key)
    is_part = key.startswith("greedy") or (word is not None and word.parts)
    if mask is None or is_part or array.ndim == 1 or array.shape[1] != mask.shape[1]:
        return list(array)
    return [row[own] for row, own in zip(array, mask.astype(bool), strict=True)]


def _texts(arrays: Arrays, facts: Mapping[str, Any]) -> list[Sample]:
    """List the case's prompts: texts, else a conversation to learn from, else ids."""
    prompts = arrays["prompts"] if "prompts" in arrays else arrays.get("prompt")
    if prompts is None:
        prompts = facts.get("prompt")
    if prompts is not None:
        texts = np.atleast_1d(np.asarray(prompts))
        return [Sample(prompt=str(text)) for text in texts]
    if facts.get("conversations"):
        return [Sample(conversation=tuple(facts["conversations"]))]
    if "input_ids" in arrays:
        rows = np.atleast_2d(arrays["input_ids"]).tolist()
        return [Sample(ids=tuple(row)) for row in rows]
    raise ValueError("the case has no prompt.")


def _visuals(arrays: Arrays) -> list[Visual]:
    """List the visuals in the order of their marks.

    The n-th "image" of `modalities` is the n-th `image_*` by number, the n-th "video" the n-th
    `frames*`, so that arrays may be numbered by visual or by kind.
    """
    found: dict[str, list[tuple[int, npt.NDArray[np.uint8]]]] = {"image": [], "video": []}
    for key, array in arrays.items():
        match = PIXELS.fullmatch(key)
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


def _taken(visuals: Iterator[Visual], count: int, name: str) -> Sequence[Visual]:
    taken = []
    for _ in range(count):
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
    overrides: dict[str, Any] = {}
    for pattern, meaning in _REMARKED:
        if pattern.search(str(facts.get("remark", ""))):
            overrides |= meaning
    return overrides | dict(facts.get("overrides") or facts.get("config_overrides") or {})
