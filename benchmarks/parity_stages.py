"""What a set stores of a case, compared with what the stages give: one function per group of keys.

Keys that need another (`logits_at_positions` and `logits_positions`) are compared where both are
there. Computes only what a case stores something of.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from parity_checks import ARGMAX_MARGIN, LOGITS_LIMIT, ROWS_LIMIT, Findings, rows_at
from parity_run import SampleRun, answers, engine_of, numpy_of
from parity_set import Arrays, Case

from llava_video.model.llava import LlavaModel

# A sum of a plane's 147,456 values in double: what is left when they are added in another order.
_SUMS_LIMIT = 1e-6

Compare = Callable[[Findings, Arrays, list[SampleRun]], None]


def compare_case(
    findings: Findings, case: Case, runs: list[SampleRun], model: LlavaModel, side: str
) -> None:
    """Compare everything a case stores.

    Args:
        findings: takes the checks.
        case: what the reference gave.
        runs: the case's samples on one model.
        model: that model.
        side: where the reference pads a batch, "left" or "right".
    """
    expected = case.expected
    _compare_ids(findings, expected, runs, side)
    _compare_plan(findings, expected, runs)
    if any(run.sample.visuals for run in runs):
        for compare in (_compare_pixels, _compare_features, _compare_pooled, _compare_rows):
            compare(findings, expected, runs)
    _compare_embeddings(findings, expected, runs, side)
    for idx, run in enumerate(runs):
        suffix = f"_{idx}" if len(runs) > 1 else ""
        _compare_logits(findings, run, suffix)
    _compare_tokens(findings, runs, model)


def _compare_ids(findings: Findings, expected: Arrays, runs: list[SampleRun], side: str) -> None:
    if "input_ids" not in expected:
        return None
    theirs = np.atleast_2d(expected["input_ids"])
    lengths = [len(run.ids) for run in runs]
    if max(lengths) > theirs.shape[1] or len(theirs) != len(runs):
        return findings.fail("ids", "input_ids", f"prompts of {lengths} ids for {theirs.shape}")
    mask = _mask(lengths, theirs.shape[1], side)
    ours = np.where(mask, 0, theirs)  # the padding's own id says nothing
    for row, own, run in zip(ours, mask, runs, strict=True):
        row[own] = run.ids
    findings.same("ids", "input_ids", ours, theirs)
    if "attention_mask_in" in expected:
        theirs = np.atleast_2d(expected["attention_mask_in"]).astype(bool)
        findings.same("ids", "attention_mask_in", mask, theirs)
    return None


def _compare_plan(findings: Findings, expected: Arrays, runs: list[SampleRun]) -> None:
    counts = [visual.num_tokens for run in runs for visual in run.plan.visuals]
    starts = [start for run in runs for start in run.feature_starts]
    for key, ours in (("feature_counts", counts), ("feature_starts", starts)):
        if key in expected:
            findings.same("plan", key, ours, expected[key])
    for run in runs:
        if "seq_len" in run.sample.expected:
            length = run.sample.expected["seq_len"]
            findings.same("plan", "seq_len", run.plan.tokens, length)


def _compare_pixels(findings: Findings, expected: Arrays, runs: list[SampleRun]) -> None:
    if not {"pixel_sub", "pixel_sum", "pixel_sqsum", "resized_u8_frame0"} & set(expected):
        return
    tiles = numpy_of([tiles for run in runs for tiles in run.tiles])
    if "pixel_sub" in expected:
        step = 8 if len(tiles) <= 6 else 16
        findings.same("pixels", "pixel_sub", tiles[:, :, 3::step, 5::step], expected["pixel_sub"])
    if "resized_u8_frame0" in expected:
        levels = np.rint((tiles[0].astype(np.float64) + 1) * 127.5).astype(np.uint8)
        findings.same("pixels", "resized_u8_frame0", levels, expected["resized_u8_frame0"])
    planes = tiles.astype(np.float64)
    for key, power in (("pixel_sum", 1), ("pixel_sqsum", 2)):
        if key in expected:
            sums = (planes**power).sum(axis=(2, 3))
            findings.near("pixel sums", key, sums, expected[key], _SUMS_LIMIT)


def _compare_features(findings: Findings, expected: Arrays, runs: list[SampleRun]) -> None:
    first = next(run for run in runs if run.sample.visuals)
    if "vision_features_frame0" in expected:
        key = "vision_features_frame0"
        ours = first.tower_frame0.cpu().numpy()
        findings.near("tower", key, ours, expected[key], ROWS_LIMIT)
    if not any(key.startswith("projected") for key in expected):
        return
    rows = numpy_of([part.flatten(0, 1) for run in runs for part in run.projected])
    num_patches = first.projected[0].shape[1]
    _near_rows(findings, "projected", "projected", rows, expected)
    if "projected_frame0" in expected:
        ours = rows[:num_patches]
        theirs = expected["projected_frame0"]
        findings.near("projected", "projected_frame0", ours, theirs, ROWS_LIMIT)


def _compare_pooled(findings: Findings, expected: Arrays, runs: list[SampleRun]) -> None:
    if not any(key.startswith("pooled") for key in expected):
        return
    if "pooled" in expected:
        ours = numpy_of([part for run in runs for part in run.pooled()])
        findings.near("pooled", "pooled", ours, expected["pooled"], ROWS_LIMIT)
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
    findings: Findings, key: str, theirs: npt.NDArray[Any], runs: list[SampleRun], *, fast: bool
) -> None:
    """Compare maps of one speed, stored for the frames of that speed or for every frame."""
    for of_all in (False, True):
        parts = [part for run in runs for part in run.pooled(fast=fast, of_all=of_all)]
        ours = numpy_of([part.flatten(0, 1) for part in parts])
        if ours.size == theirs.size or of_all:
            rows = theirs.reshape(-1, theirs.shape[-1])
            return findings.near("pooled", key, ours, rows, ROWS_LIMIT)
    return None


def _compare_rows(findings: Findings, expected: Arrays, runs: list[SampleRun]) -> None:
    if any(key.startswith("spliced") for key in expected):
        rows = numpy_of([part for run in runs for part in run.visual_rows])
        _near_rows(findings, "visual rows", "spliced", rows, expected)


def _compare_embeddings(
    findings: Findings, expected: Arrays, runs: list[SampleRun], side: str
) -> None:
    wanted = ("inputs_embeds", "attention_mask_out", "position_ids_explicit")
    if not any(key.startswith(wanted) for key in expected):
        return
    lengths = [len(run.embeddings) for run in runs]
    width = runs[0].embeddings.shape[1]
    mask = _mask(lengths, max(lengths), side)
    batch = np.zeros((*mask.shape, width), dtype=np.float32)
    for row, own, run in zip(batch, mask, runs, strict=True):
        row[own] = run.embeddings.cpu().numpy()
    if "attention_mask_out" in expected:
        theirs = expected["attention_mask_out"].astype(bool)
        findings.same("embeddings", "attention_mask_out", mask, theirs)
    if "position_ids_explicit" in expected:
        theirs = expected["position_ids_explicit"]
        positions = np.where(mask, mask.cumsum(axis=1) - 1, 0)
        ours = np.where(mask, positions, theirs) if theirs.shape == mask.shape else positions
        findings.same("embeddings", "position_ids_explicit", ours, theirs)
    if "inputs_embeds_shape" in expected:
        theirs = expected["inputs_embeds_shape"]
        findings.same("embeddings", "inputs_embeds_shape", batch.shape, theirs)
    if "inputs_embeds" in expected:
        theirs = expected["inputs_embeds"]
        ours = batch if theirs.ndim == batch.ndim else batch[0]
        findings.near("embeddings", "inputs_embeds", ours, theirs, ROWS_LIMIT)
    flat = batch.reshape(-1, width)
    _near_rows(findings, "embeddings", "inputs_embeds", flat, expected, whole=False)


def _compare_logits(findings: Findings, run: SampleRun, suffix: str) -> None:
    expected = run.sample.expected
    if not any(key.startswith("logits_") for key in expected):
        return
    stats = run.logits
    vocab = _vocab(expected, stats.rows.shape[1])
    rows = stats.rows[:, :vocab]
    ours: dict[str, torch.Tensor] = {
        "logits_last": rows[-1],
        "logits_all": rows,
        "logits_max": stats.maximum,
        "logits_margin": stats.margin,
        "logits_logsumexp": stats.logsumexp,
    }
    for key, value in ours.items():
        if key in expected:
            theirs = expected[key]
            findings.near("logits", key + suffix, value.numpy(), theirs, LOGITS_LIMIT)
    if "logits_at_positions" in expected and "logits_positions" in expected:
        key, at = "logits_at_positions", expected["logits_positions"]
        findings.near(
            "logits", key + suffix, rows_at(rows.numpy(), at), expected[key], LOGITS_LIMIT
        )
    if "logits_argmax" in expected:
        theirs = expected["logits_argmax"]
        argmax = stats.argmax.numpy()
        if argmax.shape == theirs.shape:
            margin = expected.get("logits_margin", stats.margin.numpy())
            argmax = np.where(margin > ARGMAX_MARGIN, argmax, theirs)
        findings.same("argmax", f"logits_argmax{suffix}", argmax, theirs)


def _compare_tokens(findings: Findings, runs: list[SampleRun], model: LlavaModel) -> None:
    """Compare greedy answers of the engine: each request alone, then all of the case at once."""
    asked: list[tuple[SampleRun, str, npt.NDArray[Any], float]] = []
    for idx, run in enumerate(runs):
        suffix = f"_{idx}" if len(runs) > 1 else ""
        expected = run.sample.expected
        if "greedy_tokens" in expected:
            asked.append((run, f"greedy_tokens{suffix}", expected["greedy_tokens"], 1.0))
        if {"greedy_tokens_rep_penalty", "repetition_penalty"} <= set(expected):
            penalty = float(expected["repetition_penalty"])
            tokens = expected["greedy_tokens_rep_penalty"]
            asked.append((run, f"greedy_tokens_rep_penalty{suffix}", tokens, penalty))
    if not asked:
        return
    engine = engine_of(model, runs[0].tokenizer)
    requests = [
        run.request(len(tokens), penalty, request_id=idx)
        for idx, (run, _, tokens, penalty) in enumerate(asked)
    ]
    for request, (_, key, theirs, _) in zip(requests, asked, strict=True):
        findings.same("greedy", key, answers(engine, [request])[0], theirs)
    if len(requests) > 1:
        together = answers(engine, requests)
        for ours, (_, key, theirs, _) in zip(together, asked, strict=True):
            findings.same("greedy at once", key, ours, theirs)
    _compare_margins(findings, asked)


def _compare_margins(
    findings: Findings, asked: Sequence[tuple[SampleRun, str, npt.NDArray[Any], float]]
) -> None:
    for run, key, tokens, penalty in asked:
        key = key.replace("tokens", "margin")
        theirs = run.sample.expected.get(
            "greedy_margin" if penalty == 1.0 else "greedy_margin_rep_penalty"
        )
        if theirs is not None:
            ours = run.forced_margins(tokens.tolist(), penalty)
            findings.near("greedy margins", key, ours, theirs, LOGITS_LIMIT)


def _near_rows(
    findings: Findings,
    stage: str,
    name: str,
    rows: npt.NDArray[Any],
    expected: Arrays,
    *,
    whole: bool = True,
) -> None:
    """Compare rows as sets store them: all, some by index, the mean of every one."""
    if whole and name in expected:
        findings.near(stage, name, rows, expected[name], ROWS_LIMIT)
    some, index = f"{name}_rows", f"{name}_row_index"
    if some in expected and index in expected:
        findings.near(stage, some, rows_at(rows, expected[index]), expected[some], ROWS_LIMIT)
    mean = f"{name}_row_mean"
    if mean in expected:
        means = rows.mean(axis=-1, dtype=np.float64)
        findings.near(stage, mean, means, expected[mean].reshape(-1), ROWS_LIMIT)


def _mask(lengths: Sequence[int], width: int, side: str) -> npt.NDArray[np.bool_]:
    """Return which places of a padded batch are real."""
    places = np.arange(width)[None]
    counts = np.asarray(lengths)[:, None]
    return places < counts if side == "right" else places >= width - counts


def _vocab(expected: Arrays, ours: int) -> int:
    """Return the logits' width to compare: a set may store fewer columns than there are rows."""
    widths = [
        expected[key].shape[-1]
        for key in ("logits_last", "logits_at_positions", "logits_all")
        if key in expected
    ]
    return min([ours, *widths])
