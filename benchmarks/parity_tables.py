"""Tables of a set, compared with what they describe: sampling, geometry, prompts, labels, pooling.

Tables need no weights: the planner's functions, the template and the tokenizer are called as they
stand. What a table is of is told by its rows' keys, and with that which models it is asked of. A
table with a row of another kind is said to be unread.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from parity_checks import ROWS_LIMIT, Findings
from parity_keys import Arrays
from parity_model import Candidate
from parity_prompts import compare_labels, compare_prompt, compare_turns
from parity_visuals import video_of

from llava_video.model.model_config import geometry_of
from llava_video.ops.pool import pool_map
from llava_video.ops.tiles import letterbox_offset, letterbox_size
from llava_video.planning.geometry import ReferenceRule
from llava_video.planning.grid import choose_canvas
from llava_video.planning.layout import image_layout, layout_tokens
from llava_video.planning.reference_sampling import (
    midpoint_indices,
    reference_sample,
    uniform_indices,
)
from llava_video.planning.sampler import Sample, sample_frames
from llava_video.planning.settings import SamplingSettings
from llava_video.planning.time_note import TimeNote

Row = Mapping[str, Any]

_STEPS = ("force_sample", "frame_time", "indices", "video_time")
_GEOMETRY = (
    "content_box_ltrb",
    "final_hw",
    "grid_wh",
    "image_tokens",
    "n_newlines",
    "n_tiles",
    "n_tokens",
    "rows_cols_after_unpad",
    "unpadded_hw",
)


class Kind(NamedTuple):
    """One kind of table.

    Attributes:
        keys: what each of its rows has.
        others: what else is read of a row.
        asks: which models: "none", those that lay pictures out on "canvases", "all", or the "one"
            whose tokenizer it was made with, which no table names.
        compare: compares its rows on a model; on no model where it asks none.
    """

    keys: Sequence[str]
    others: Sequence[str]
    asks: str
    compare: Callable[[Findings, Any, Sequence[Row]], None]

    def models(self, candidates: Sequence[Candidate]) -> list[Candidate | None]:
        """Return the models it is asked of."""
        if self.asks == "none":
            return [None]
        if self.asks == "canvases":
            return [one for one in candidates if one.config.visual.aspect == "anyres"]
        return list(candidates)

    def unknown(self, rows: Sequence[Row]) -> list[str]:
        """Return the rows' keys that nothing reads."""
        return sorted({key for row in rows for key in row} - {*self.keys, *self.others})


def kind_of(table: Any) -> Kind | None:
    """Say what a table is of; None for a kind that is not known."""
    rows = list(rows_of(table))
    for kind in _KINDS:
        if rows and all(set(kind.keys) <= set(row) for row in rows):
            return kind
    return None


def rows_of(table: Any) -> Iterator[Row]:
    """Yield a table's rows: of a list, of `rows` beside what they share, or of a row per name."""
    if isinstance(table, Mapping) and isinstance(table.get("rows"), Sequence):
        shared = {key: value for key, value in table.items() if key != "rows"}
        table = [{**shared, **row} if isinstance(row, Mapping) else row for row in table["rows"]]
    elif isinstance(table, Mapping):
        table = [
            {"template": name, **row} if isinstance(row, Mapping) else {}
            for name, row in table.items()
        ]
    if isinstance(table, Sequence):
        for row in table:
            yield row if isinstance(row, Mapping) else {}


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


def _by_row(compare: Callable[[Findings, Any, Row, str], None]) -> Any:
    def compare_rows(findings: Findings, candidate: Any, rows: Sequence[Row]) -> None:
        for idx, row in enumerate(rows):
            compare(findings, candidate, row, f"[{idx}]")

    return compare_rows


def _compare_sampling(findings: Findings, _: None, row: Row, at: str) -> None:
    """Compare the pure arithmetic, and the sampler's compat="reference" with its time sentence."""
    total, rate_hz, limit = row["total_frames"], row["avg_fps"], row["max_frames"]
    uniform = uniform_indices(total, limit)
    findings.same("sampling", f"{at} uniform_indices", uniform, row["uniform_indices"])
    plain = _sampled(row, SamplingSettings(max_frames=limit))
    theirs = sorted(set(row["uniform_indices"]))
    findings.same("sampling", f"{at} without duplicates", plain.frame_idxs, theirs)
    idxs, _ = reference_sample(total, rate_hz, limit, row["force_sample"], row["fps"])
    if "error" in row:  # the reference divides by a step of 0; with the least step there is, 1:
        fits = total <= limit and not row["force_sample"]
        theirs = list(range(total)) if fits else row["uniform_indices"]
        findings.same("sampling", f"{at} mended error", idxs, theirs)
        return
    note = _compare_steps(findings, row, at, rate_hz, limit, row["fps"])
    findings.same("sampling", f"{at} time_instruction", note.sentence(), row["time_instruction"])


def _compare_whole_rates(findings: Findings, _: None, row: Row, at: str) -> None:
    """Compare the loader of one frame per second: here `fps` is the video's own rate."""
    _compare_steps(findings, row, at, row["fps"], row["limit"], 1)


def _compare_steps(
    findings: Findings, row: Row, at: str, rate_hz: float, limit: int, fps: float
) -> TimeNote:
    total, forced = row["total_frames"], row["force_sample"]
    idxs, times_s = reference_sample(total, rate_hz, limit, forced, fps)
    findings.same("sampling", f"{at} indices", idxs, row["indices"])
    findings.same("sampling", f"{at} frame_time", _listed(times_s), row["frame_time"])
    asked = SamplingSettings(fps=None if forced else fps, max_frames=limit, compat="reference")
    sample = _sampled({**row, "avg_fps": rate_hz}, asked)
    findings.same("sampling", f"{at} sampler", sample.frame_idxs, row["indices"])
    findings.near("sampling", f"{at} video_time", sample.duration_s, row["video_time"], 0.0)
    return TimeNote(
        duration_s=sample.duration_s, num_frames=sample.num_frames, times_s=sample.times_s
    )


def _compare_midpoints(findings: Findings, _: None, row: Row, at: str) -> None:
    total, count = row["total"], row["want"]
    idxs = midpoint_indices(total, count)
    findings.same("sampling", f"{at} indices", idxs, row["indices"])
    asked = SamplingSettings(num_frames=count, compat="reference")
    sample = _sampled({"total_frames": total, "avg_fps": 25.0}, asked, "midpoints")
    findings.same("sampling", f"{at} sampler", sample.frame_idxs, row["indices"])


def _sampled(row: Row, settings: SamplingSettings, rule: ReferenceRule = "steps") -> Sample:
    info = video_of(row["total_frames"], row["avg_fps"])
    limit = row.get("max_frames", info.num_frames)
    return sample_frames(info, settings, max_frames=limit, reference_rule=rule)


def _listed(times_s: Any) -> str:
    return ",".join(f"{time_s:.2f}s" for time_s in times_s)


def _compare_geometry(findings: Findings, candidate: Candidate, row: Row, at: str) -> None:
    if "size_wh" in row:
        width_px, height_px = row["size_wh"]
        overrides = {
            "image_aspect_ratio": "anyres",
            "image_grid_pinpoints": row["pinpoints_wh"],
            "mm_patch_merge_type": "spatial_unpad",
        }
    else:
        height_px, width_px = row["height"], row["width"]
        overrides = {"image_aspect_ratio": row["image_aspect_ratio"]}
    config = candidate.config_with(overrides)
    geometry = geometry_of(config, candidate.name, "float32")
    canvas = choose_canvas(height_px, width_px, geometry.canvases)
    size_px = letterbox_size(height_px, width_px, *canvas)
    top, left = letterbox_offset(size_px, *canvas)
    layout = image_layout(height_px, width_px, geometry, geometry.aspect)
    crop = layout.crop
    unpadded = (crop[1] - crop[0], crop[3] - crop[2])
    ours: dict[str, Any] = {
        "best_resolution_wh": canvas[::-1],
        "grid_wh": (layout.grid.cols, layout.grid.rows),
        "n_tiles": layout.grid.rows * layout.grid.cols + int(layout.overview),
        "content_box_ltrb": (left, top, left + size_px[1], top + size_px[0]),
        "unpadded_hw": unpadded,
        "rows_cols_after_unpad": unpadded,
        "final_hw": layout.map_size,
        "n_newlines": layout.map_size[0],
        "n_tokens": layout_tokens(layout, 1),
        "image_tokens": layout_tokens(layout, 1),
    }
    for key, value in ours.items():
        if key in row:
            findings.same("geometry", f"{at} {key}", value, row[key])


# What a row of each kind is told by, and what else is read of it.
_KINDS = (
    Kind(
        ("total_frames", "avg_fps", "max_frames"),
        (*_STEPS, "error", "fps", "time_instruction", "uniform_indices"),
        "none",
        _by_row(_compare_sampling),
    ),
    Kind(("total_frames", "fps", "limit"), _STEPS, "none", _by_row(_compare_whole_rates)),
    Kind(("total", "want"), ("indices",), "none", _by_row(_compare_midpoints)),
    Kind(
        ("best_resolution_wh",),
        (*_GEOMETRY, "height", "image_aspect_ratio", "pinpoints_wh", "size_wh", "width"),
        "canvases",
        _by_row(_compare_geometry),
    ),
    # A sample's name says nothing.
    Kind(
        ("conversations", "labels"),
        ("input_ids", "sample", "template"),
        "one",
        _by_row(compare_labels),
    ),
    Kind(("template", "prompt"), ("history", "input_ids", "user"), "all", _by_row(compare_prompt)),
    # Roles stand in the texts, where a template writes them.
    Kind(("template", "one_turn"), ("roles", "sep", "sep2", "two_turns"), "none", compare_turns),
)
