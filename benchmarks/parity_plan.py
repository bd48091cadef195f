"""What is settled before any pixel: ids, counts, places, and what cases.json states of a case."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from parity_checks import Findings
from parity_keys import Arrays, stored
from parity_run import SampleRun
from parity_visuals import video_of

from llava_video.model.model_config import ModelConfig, geometry_of
from llava_video.planning.sampler import sample_frames
from llava_video.planning.settings import SamplingSettings

Runs = Sequence[SampleRun]


def compare_ids(findings: Findings, expected: Arrays, runs: Runs, side: str) -> None:
    """Compare prompts' ids, as a batch of the reference has them."""
    if "input_ids" not in expected:
        return None
    theirs = np.atleast_2d(expected["input_ids"])
    lengths = [len(run.ids) for run in runs]
    if max(lengths) > theirs.shape[1] or len(theirs) != len(runs):
        return findings.fail("ids", "input_ids", f"prompts of {lengths} ids for {theirs.shape}")
    mask = padding_mask(lengths, theirs.shape[1], side)
    ours = np.where(mask, 0, theirs)  # the padding's own id says nothing
    for row, own, run in zip(ours, mask, runs, strict=True):
        row[own] = run.ids
    findings.same("ids", "input_ids", ours, theirs)
    if found := stored(expected, "attention_mask_in"):
        key, theirs = found
        findings.same("ids", key, mask, np.atleast_2d(theirs).astype(bool))
    return None


def compare_labels(findings: Findings, runs: Runs) -> None:
    """Compare which ids of a conversation are learned; where ids are given, so are their labels."""
    for run in runs:
        if run.sample.conversation and "labels" in run.sample.expected:
            findings.same("labels", "labels", run.labels, run.sample.expected["labels"])


def compare_plan(findings: Findings, expected: Arrays, runs: Runs) -> None:
    """Compare visual tokens per item, where they start, and the sequence's length."""
    counts = [visual.num_tokens for run in runs for visual in run.plan.visuals]
    starts = [start for run in runs for start in run.feature_starts]
    for word, ours in (("feature_counts", counts), ("feature_starts", starts)):
        if found := stored(expected, word):
            key, theirs = found
            findings.same("plan", key, ours, np.atleast_1d(theirs))
    for run in runs:
        if "seq_len" in run.sample.expected:
            findings.same("plan", "seq_len", run.num_tokens, run.sample.expected["seq_len"])


def compare_facts(
    findings: Findings, facts: Mapping[str, Any], runs: Runs, config: ModelConfig
) -> None:
    """Compare what cases.json states of a case."""
    for key, theirs in facts.items():
        if key in FACTS:
            findings.same("facts", key, FACTS[key](runs, config), theirs)


def compare_frames(
    findings: Findings, expected: Arrays, facts: Mapping[str, Any], config: ModelConfig
) -> None:
    """Compare which frames of a video of so many frames and such a rate the model takes."""
    if "frame_indices" not in expected:
        return
    if not {"total_frames", "fps"} <= set(facts):
        findings.fail("sampling", "frame_indices", "cases.json has no total_frames and fps.")
        return
    geometry = geometry_of(config, "golden", "float32")
    sample = sample_frames(
        video_of(facts["total_frames"], facts["fps"]),
        SamplingSettings(compat="reference"),
        max_frames=geometry.max_frames,
        fps=geometry.fps,
        reference_rule=geometry.reference_rule,
    )
    findings.same("sampling", "frame_indices", sample.frame_idxs, expected["frame_indices"])


def padding_mask(lengths: Sequence[int], width: int, side: str) -> npt.NDArray[np.bool_]:
    """Return which places of a padded batch are real."""
    places = np.arange(width)[None]
    counts = np.asarray(lengths)[:, None]
    return places < counts if side == "right" else places >= width - counts


def _canvas(runs: Runs, config: ModelConfig) -> list[int]:
    grid, tile_px = runs[0].plan.visuals[0].grid, config.vision.image_px
    return [grid.cols * tile_px, grid.rows * tile_px]


def _tokens_per_frame(runs: Runs, _: ModelConfig) -> int:
    visual = runs[0].plan.visuals[0]
    return visual.num_tokens // visual.num_frames


def _text(runs: Runs, _: ModelConfig) -> str:
    found = stored(runs[0].sample.expected, "greedy_tokens")
    return runs[0].tokenizer.decode([] if found is None else found[1].tolist())


FACTS: Mapping[str, Callable[[Runs, ModelConfig], Any]] = {
    "best_resolution": _canvas,
    "conv": lambda _, config: config.template,
    "frames": lambda runs, _: runs[0].plan.visuals[0].num_frames,
    "image_sizes_wh": lambda runs, _: [
        [visual.width_px, visual.height_px] for run in runs for visual in run.plan.visuals
    ],
    "image_tokens": lambda runs, _: sum(run.plan.visual_tokens for run in runs),
    "parts": lambda runs, _: runs[0].plan.visuals[0].tiles_per_frame,
    "rope_factor": lambda _, config: config.text.rope_scale,
    "text": _text,
    "tiles": lambda runs, _: runs[0].plan.visuals[0].tiles_per_frame,
    "tokens_per_frame": _tokens_per_frame,
    "tokens_per_image": _tokens_per_frame,
}
# With what `compare_frames` reads.
KNOWN_FACTS = frozenset(FACTS) | {"fps", "total_frames"}
