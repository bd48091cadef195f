"""Tables of a set, compared with what they describe: sampling, geometry, prompts, pooling.

Tables need no weights: the planner's functions, the template and the tokenizer are called as they
stand. A table of another shape is said to be unread.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from parity_checks import ROWS_LIMIT, Findings
from parity_model import Candidate
from parity_set import Arrays

from llava_video.model.model_config import geometry_of
from llava_video.model.prompt import Turn, render
from llava_video.ops.pool import pool_map
from llava_video.ops.tiles import letterbox_offset, letterbox_size
from llava_video.planning.grid import choose_canvas
from llava_video.planning.layout import image_layout, layout_tokens
from llava_video.planning.reference_sampling import reference_sample, uniform_indices
from llava_video.planning.sampler import Sample, sample_frames
from llava_video.planning.settings import SamplingSettings
from llava_video.planning.time_note import TimeNote
from llava_video.values import VideoInfo

Row = Mapping[str, Any]


def compare_table(findings: Findings, candidate: Candidate, rows: Any) -> bool:
    """Compare a table; return whether its rows are of a kind that is known."""
    compare = _comparison(rows)
    if compare is None:
        return False
    for idx, row in enumerate(rows):
        compare(findings, candidate, row, f"[{idx}]")
    return True


def is_pooling(arrays: Arrays) -> bool:
    """Whether a case is the pooling table: `input` and results named by mode and stride."""
    return "input" in arrays and any("_stride" in key for key in arrays)


def compare_pooling(findings: Findings, arrays: Arrays) -> list[str]:
    """Compare pooled maps; return the keys that are none."""
    features = torch.from_numpy(arrays["input"])
    side = round(features.shape[1] ** 0.5)
    maps = features.reshape(len(features), side, side, -1)
    unknown = []
    for key, theirs in arrays.items():
        mode, _, stride = key.partition("_stride")
        if mode in ("bilinear", "average", "max") and stride.isdigit():
            ours = pool_map(maps, int(stride), mode).flatten(1, 2)
            findings.near("pooled", key, ours.numpy(), theirs, ROWS_LIMIT)
        elif key != "input":
            unknown.append(key)
    return unknown


def _comparison(rows: Any) -> Callable[[Findings, Candidate, Row, str], None] | None:
    if not isinstance(rows, Sequence) or not rows or not isinstance(rows[0], Mapping):
        return None
    for key, compare in (
        ("total_frames", _compare_sampling),
        ("best_resolution_wh", _compare_geometry),
        ("template", _compare_prompt),
    ):
        if key in rows[0]:
            return compare
    return None


def _compare_sampling(findings: Findings, _: Candidate, row: Row, at: str) -> None:
    """Compare the pure arithmetic, and the sampler's compat="reference" with its time sentence."""
    total, rate_hz, limit = row["total_frames"], row["avg_fps"], row["max_frames"]
    uniform = uniform_indices(total, limit)
    findings.same("sampling", f"{at} uniform_indices", uniform, row["uniform_indices"])
    plain = _sampled(row, SamplingSettings(max_frames=limit))
    theirs = sorted(set(row["uniform_indices"]))
    findings.same("sampling", f"{at} without duplicates", plain.frame_idxs, theirs)
    idxs, times_s = reference_sample(total, rate_hz, limit, row["force_sample"], row["fps"])
    if "error" in row:  # the reference divides by a step of 0; with the least step there is, 1:
        fits = total <= limit and not row["force_sample"]
        theirs = list(range(total)) if fits else row["uniform_indices"]
        findings.same("sampling", f"{at} mended error", idxs, theirs)
        return
    findings.same("sampling", f"{at} indices", idxs, row["indices"])
    findings.same("sampling", f"{at} frame_time", _listed(times_s), row["frame_time"])
    fps = None if row["force_sample"] else row["fps"]
    asked = SamplingSettings(fps=fps, max_frames=limit, compat="reference")
    sample = _sampled(row, asked)
    findings.same("sampling", f"{at} sampler", sample.frame_idxs, row["indices"])
    findings.near("sampling", f"{at} video_time", sample.duration_s, row["video_time"], 0.0)
    note = TimeNote(
        duration_s=sample.duration_s, num_frames=sample.num_frames, times_s=sample.times_s
    )
    findings.same("sampling", f"{at} time_instruction", note.sentence(), row["time_instruction"])


def _sampled(row: Row, settings: SamplingSettings) -> Sample:
    total, rate_hz = row["total_frames"], row["avg_fps"]
    info = VideoInfo(
        duration_s=total / rate_hz,
        num_frames=total,
        frame_rate_hz=rate_hz,
        height_px=360,
        width_px=640,
        codec="raw",
        container="array",
        pts_s=np.arange(total) / rate_hz,
        tick_s=1 / 90_000,
    )
    return sample_frames(info, settings, max_frames=row["max_frames"])


def _listed(times_s: Any) -> str:
    return ",".join(f"{time_s:.2f}s" for time_s in times_s)


def _compare_geometry(findings: Findings, candidate: Candidate, row: Row, at: str) -> None:
    height_px, width_px = row["height"], row["width"]
    config = candidate.config_with({"image_aspect_ratio": row["image_aspect_ratio"]})
    geometry = geometry_of(config, candidate.name, "float32")
    canvas = choose_canvas(height_px, width_px, geometry.canvases)
    size_px = letterbox_size(height_px, width_px, *canvas)
    top, left = letterbox_offset(size_px, *canvas)
    layout = image_layout(height_px, width_px, geometry, geometry.aspect)
    crop = layout.crop
    ours: dict[str, Any] = {
        "best_resolution_wh": canvas[::-1],
        "grid_wh": (layout.grid.cols, layout.grid.rows),
        "n_tiles": layout.grid.rows * layout.grid.cols + int(layout.overview),
        "content_box_ltrb": (left, top, left + size_px[1], top + size_px[0]),
        "unpadded_hw": (crop[1] - crop[0], crop[3] - crop[2]),
        "final_hw": layout.map_size,
        "n_newlines": layout.map_size[0],
        "n_tokens": layout_tokens(layout, 1),
    }
    for key, value in ours.items():
        if key in row:
            findings.same("geometry", f"{at} {key}", value, row[key])


def _compare_prompt(findings: Findings, candidate: Candidate, row: Row, at: str) -> None:
    turns = []
    for question, answer in row["history"]:
        turns += [Turn("user", question), Turn("assistant", answer)]
    prompt = render([*turns, Turn("user", row["user"])], row["template"])
    findings.same("prompts", f"{at} prompt", prompt, row["prompt"])
    ids = candidate.tokenizer.encode_ids(row["prompt"])
    findings.same("prompts", f"{at} input_ids", ids, row["input_ids"])
