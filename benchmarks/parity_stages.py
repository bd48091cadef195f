"""What a set stores of a case, compared with what the stages give.

`QUANTITIES` says for each quantity of `parity_keys` where it leaves the data path; a key's parts
say which part of it was stored. What no quantity is (counts, masks, sums, shapes) has a function of
its own. Computes only what a case stores something of.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from parity_answers import compare_logits, compare_loss, compare_tokens
from parity_case import Case
from parity_checks import ROWS_LIMIT, Findings
from parity_keys import WORDS, Arrays, aligned, index_of, part_of, read_key
from parity_plan import (
    compare_facts,
    compare_frames,
    compare_ids,
    compare_labels,
    compare_plan,
    padding_mask,
)
from parity_run import SampleRun, numpy_of

from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import ModelConfig

# A sum of a plane's 147,456 values in double: what is left when they are added in another order.
_SUMS_LIMIT = 1e-6

Runs = Sequence[SampleRun]


class Quantity(NamedTuple):
    """Where a quantity leaves the data path.

    Attributes:
        stage: the name of the stage.
        limit: the largest error; 0 for equality.
        frames: gives (T, R, D) rows, or (T, C, H, W) pictures.
    """

    stage: str
    limit: float
    frames: Callable[[Runs], npt.NDArray[Any]]


def compare_case(
    findings: Findings,
    case: Case,
    runs: Runs,
    model: LlavaModel,
    config: ModelConfig,
    logits_limit: float,
) -> None:
    """Compare everything a case stores.

    Args:
        findings: takes the checks.
        case: what the reference gave.
        runs: the case's samples on one model.
        model: that model.
        config: its configuration; says where the reference pads a batch.
        logits_limit: the largest error of a logit.
    """
    expected, side = case.expected, config.padding_side
    compare_ids(findings, expected, runs, side)
    compare_labels(findings, runs)
    compare_plan(findings, expected, runs)
    compare_facts(findings, case.facts, runs, config)
    compare_frames(findings, expected, case.facts, config)
    for key, theirs in expected.items():
        _compare_quantity(findings, key, theirs, case, runs)
    _compare_planes(findings, expected, runs)
    _compare_pooled(findings, expected, runs)
    _compare_batch(findings, expected, runs, side)
    compare_loss(findings, expected, runs)
    for idx, run in enumerate(runs):
        compare_logits(findings, run, f"_{idx}" if len(runs) > 1 else "", logits_limit)
    compare_tokens(findings, runs, model, logits_limit)


def _compare_quantity(
    findings: Findings, key: str, theirs: npt.NDArray[Any], case: Case, runs: Runs
) -> None:
    word = read_key(key)
    quantity = QUANTITIES.get(word.quantity) if word else None
    if word is None or quantity is None:
        return
    ours = part_of(quantity.frames(runs), word.parts, index_of(key, case.expected))
    if word.quantity == "fused text" and ours is not None and ours.shape == theirs.shape:
        # What the fusion leaves out keeps its embedding; the reference stores what nobody reads.
        ours = np.where(np.isnan(ours), theirs, ours)
    if word.quantity == "whole frames":  # stored as frames are, ours as tiles are
        theirs = np.moveaxis(theirs, -1, -3)
    if ours is None:
        findings.fail(quantity.stage, key, "it does not say which rows.")
    elif quantity.limit:
        findings.near(quantity.stage, key, aligned(ours, theirs), theirs, quantity.limit)
    else:
        findings.same(quantity.stage, key, aligned(ours, theirs), theirs)


def _compare_planes(findings: Findings, expected: Arrays, runs: Runs) -> None:
    """Compare what is stored of whole tiles: some pixels of each, means, sums."""
    if "pixel_sub" in expected:
        tiles = _pixels(runs)
        step = 8 if len(tiles) <= 6 else 16
        findings.same("pixels", "pixel_sub", tiles[:, :, 3::step, 5::step], expected["pixel_sub"])
    if "tile_means" in expected:
        # Sums of integers are exact, so the means are equal whatever their order.
        means = _levels(runs).mean(axis=(1, 2, 3), dtype=np.float64)
        findings.same("pixels", "tile_means", means, expected["tile_means"])
    for key, power in (("pixel_sum", 1), ("pixel_sqsum", 2)):
        if key in expected:
            sums = (_pixels(runs).astype(np.float64) ** power).sum(axis=(2, 3))
            findings.near("pixel sums", key, sums, expected[key], _SUMS_LIMIT)


def _compare_pooled(findings: Findings, expected: Arrays, runs: Runs) -> None:
    for key, fast in (("pooled_slow", False), ("pooled_fast", True)):
        if key in expected:
            _compare_slow_fast(findings, key, expected[key], runs, fast=fast)
    if "pooled_shape" in expected:
        # One row per call of the reference's pooling, which may pool a video more than once.
        speeds = (False, True) if any(p.slow_every for r in runs for p in r.plan.visuals) else ()
        parts = [part for run in runs for part in run.pooled()]
        parts += [part for run in runs for fast in speeds for part in run.pooled(fast=fast)]
        shapes = {tuple(part.shape[1:]) for part in parts}
        theirs = {tuple(int(n) for n in shape[1:]) for shape in expected["pooled_shape"]}
        findings.same("pooled", "pooled_shape", sorted(shapes), sorted(theirs))


def _compare_slow_fast(
    findings: Findings, key: str, theirs: npt.NDArray[Any], runs: Runs, *, fast: bool
) -> None:
    """Compare maps of one speed, stored for the frames of that speed or for every frame."""
    for of_all in (False, True):
        parts = [part for run in runs for part in run.pooled(fast=fast, of_all=of_all)]
        ours = numpy_of([part.flatten(0, 1) for part in parts])
        if ours.size == theirs.size or of_all:
            rows = theirs.reshape(-1, theirs.shape[-1])
            return findings.near("pooled", key, ours, rows, ROWS_LIMIT)
    return None


def _compare_batch(findings: Findings, expected: Arrays, runs: Runs, side: str) -> None:
    """Compare what the reference's padding makes of lengths."""
    lengths = [run.num_tokens for run in runs]
    mask = padding_mask(lengths, max(lengths), side)
    for key in ("attention_mask_out", "expanded_attention_mask"):
        if key in expected:
            findings.same("embeddings", key, mask, expected[key].astype(bool))
    if "expanded_lengths" in expected:
        findings.same("plan", "expanded_lengths", lengths, expected["expanded_lengths"])
    if "expanded_len" in expected:
        findings.same("plan", "expanded_len", max(lengths), expected["expanded_len"])
    if "position_ids_explicit" in expected:
        theirs = expected["position_ids_explicit"]
        positions = np.where(mask, mask.cumsum(axis=1) - 1, 0)
        ours = np.where(mask, positions, theirs) if theirs.shape == mask.shape else positions
        findings.same("embeddings", "position_ids_explicit", ours, theirs)
    if "inputs_embeds_shape" in expected:
        shape = (*mask.shape, runs[0].embeddings.shape[1])
        findings.same("embeddings", "inputs_embeds_shape", shape, expected["inputs_embeds_shape"])


def _pixels(runs: Runs) -> npt.NDArray[Any]:
    return numpy_of([tiles for run in runs for tiles in run.tiles])


def _levels(runs: Runs) -> npt.NDArray[np.uint8]:
    return np.concatenate([levels for run in runs for levels in run.levels])


def _whole_frames(runs: Runs) -> npt.NDArray[np.uint8]:
    return np.concatenate([whole for run in runs for whole in run.whole_frames])


def _embeddings(runs: Runs) -> npt.NDArray[Any]:
    """Return (B, L, D) as the reference pads: prompts of zeros behind or before."""
    side = runs[0].config.padding_side
    lengths = [len(run.embeddings) for run in runs]
    mask = padding_mask(lengths, max(lengths), side)
    batch = np.zeros((*mask.shape, runs[0].embeddings.shape[1]), dtype=np.float32)
    for row, own, run in zip(batch, mask, runs, strict=True):
        row[own] = run.embeddings.cpu().numpy()
    return batch


QUANTITIES = {
    "pixels": Quantity("pixels", 0, _pixels),
    "levels": Quantity("pixels", 0, _levels),
    "whole frames": Quantity("pixels", 0, _whole_frames),
    "features": Quantity(
        "tower", ROWS_LIMIT, lambda runs: numpy_of([part for run in runs for part in run.features])
    ),
    "compressed": Quantity(
        "compressed", ROWS_LIMIT, lambda runs: numpy_of([run.compressed for run in runs])
    ),
    "projected": Quantity(
        "projected",
        ROWS_LIMIT,
        lambda runs: numpy_of([part for run in runs for part in run.projected]),
    ),
    "pooled": Quantity(
        "pooled",
        ROWS_LIMIT,
        lambda runs: numpy_of([part for run in runs for part in run.pooled()]),
    ),
    "visual rows": Quantity(
        "visual rows",
        ROWS_LIMIT,
        lambda runs: numpy_of([part for run in runs for part in run.visual_rows])[None],
    ),
    "fused text": Quantity(
        "fused text", ROWS_LIMIT, lambda runs: np.stack([run.fused_text for run in runs])
    ),
    "embeddings": Quantity("embeddings", ROWS_LIMIT, _embeddings),
}
assert set(QUANTITIES) | {"logits"} == set(WORDS.values()) | {"whole frames"}
