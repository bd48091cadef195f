"""A plan → the short table a person reads before paying for it.

Words only: computes nothing that the plan does not say.
"""

import textwrap
from collections.abc import Iterator

from llava_video.values import Grid, Newline, Plan, VisualPlan

_WIDTH = 100
_LABEL_WIDTH = 9

_NEWLINES = {
    Newline.ROW: "newline after each row",
    Newline.FRAME: "newline after each frame",
    Newline.CLIP: "newline at the end",
    Newline.NONE: "no newlines",
}
_FITS = {
    "squeeze": "squeezed to a square",
    "pad": "padded to a square",
    "letterbox": "fitted to its grid",
    "crop": "its middle cropped to a square",
    "nearest": "squeezed to a square, without a filter",
}


def plan_table(plan: Plan) -> str:
    """Return the plan as text, a line per fact, without a newline at the end."""
    lines = [*_line("model", plan.model)]
    for idx, visual in enumerate(plan.visuals):
        lines += _visual_lines(visual, idx, len(plan.visuals))
    lines += _line("tokens", _tokens_words(plan))
    lines += _line("memory", _memory_words(plan))
    for reason in plan.reasons:
        lines += _line("because", reason)
    for warning in plan.warnings:
        lines += _line("warning", warning)
    return "\n".join(lines)


def ordinal(number: int) -> str:
    """Return 2 as "2nd", 11 as "11th", 21 as "21st"."""
    teen = 10 <= number % 100 <= 20
    suffix = "th" if teen else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def bytes_words(num_bytes: int) -> str:
    """Return bytes as people say them: 1536 → "1.5 KiB"."""
    amount, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def _visual_lines(visual: VisualPlan, idx: int, num_visuals: int) -> Iterator[str]:
    label = visual.kind if num_visuals == 1 else f"{visual.kind} {idx + 1}"
    size = f"{visual.width_px} px wide, {visual.height_px} px high"
    length = "" if visual.duration_s is None else f", {visual.duration_s:.2f} s"
    yield from _line(label, f"{visual.source}: {size}{length}")
    if visual.kind == "video":
        yield from _line("frames", _frames_words(visual))
    yield from _line("tiles", _tiles_words(visual))
    yield from _line("rows", _rows_words(visual))


def _frames_words(visual: VisualPlan) -> str:
    times = f"at {visual.times_s[0]:.2f} s"
    if visual.num_frames > 1:
        times = f"from {visual.times_s[0]:.2f} s to {visual.times_s[-1]:.2f} s"
    told = {0: "no times", 1: "all times"}.get(
        visual.note_every, f"every {ordinal(visual.note_every)} time"
    )
    return f"{visual.num_frames} {times}; {told} in the prompt"


def _tiles_words(visual: VisualPlan) -> str:
    noun = "frame" if visual.kind == "video" else "picture"
    fit = _FITS[visual.fit]
    if visual.grid == Grid(1, 1) and not visual.overview:
        return f"1 per {noun}, {fit}"
    grid = f"{visual.grid.rows} x {visual.grid.cols}"
    overview = " and the whole" if visual.is_fused else " and an overview" * visual.overview
    return f"{visual.tiles_per_frame} per {noun}: {grid} (rows x columns){overview}, {fit}"


def _rows_words(visual: VisualPlan) -> str:
    top, bottom, left, right = visual.crop
    pooling = "not pooled"
    if visual.is_fused:
        pooling = f"compressed from {bottom - top} x {right - left}, fused with the prompt"
    elif visual.pool_stride > 1:
        before = " before the projector" * (visual.pool_of == "features")
        pooling = f"{visual.pool_mode} pooling by {visual.pool_stride}{before}"
    elif visual.map_size != (bottom - top, right - left):
        pooling = f"shrunk from {bottom - top} x {right - left}"
    parts = [f"{visual.map_size[0]} x {visual.map_size[1]} map"]
    if visual.overview_side:
        parts.append(f"{visual.overview_side} x {visual.overview_side} overview")
    if visual.slow_every:
        side = visual.fast_side
        slow = "every" if visual.slow_every == 1 else f"every {ordinal(visual.slow_every)}"
        parts.append(f"{slow} frame so, the others {side} x {side}, a separator after each")
    total = f"{visual.num_tokens:,} token{'s'[: visual.num_tokens != 1]}"
    if visual.num_frames > 1:
        each, rest = divmod(visual.num_tokens, visual.num_frames)
        total = f"{'about ' if rest else ''}{each:,} per frame, {visual.num_tokens:,} in all"
    return f"{', '.join(parts)}; {pooling}; {_NEWLINES[visual.newline]}; {total}"


def _tokens_words(plan: Plan) -> str:
    scale = "" if plan.position_scale == 1 else f" x {plan.position_scale:g}"
    total = plan.tokens + plan.max_new_tokens
    return (
        f"{plan.visual_tokens:,} visual (of {plan.budget_tokens:,}) + {plan.text_tokens:,} text + "
        f"{plan.max_new_tokens:,} answer = {total:,} (of {plan.context_tokens:,}{scale})"
    )


def _memory_words(plan: Plan) -> str:
    memory = plan.memory
    if not memory.total_bytes:
        return "none here: a server answers"
    parts = [
        f"weights {bytes_words(memory.weights_bytes)} ({plan.weight_format})",
        f"cache {bytes_words(memory.kv_bytes)} ({plan.kv_format})",
        f"activations about {bytes_words(memory.activation_bytes)}",
    ]
    if memory.workspace_bytes:
        parts.append(f"workspace about {bytes_words(memory.workspace_bytes)}")
    return f"{bytes_words(memory.total_bytes)}: {', '.join(parts)}"


def _line(label: str, words: str) -> list[str]:
    return textwrap.wrap(
        words,
        width=_WIDTH,
        initial_indent=f"{label:<{_LABEL_WIDTH}} ",
        subsequent_indent=" " * (_LABEL_WIDTH + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )
