"""What is asked of one input and a model → its answers, or its timeline.

The one place that says how an archive asks, so that a replay asks what a run asked. Knows no ledger
and no row.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from llava_video.archive.row import Asked
from llava_video.archive.unit import Item
from llava_video.options import Options
from llava_video.timeline import Patience, Timeline
from llava_video.values import Description

if TYPE_CHECKING:
    from llava_video.api import LlavaVideo


def answer_item(
    model: "LlavaVideo",
    item: Item,
    asked: Asked,
    reading: Mapping[str, Any] | None = None,
    patience: Patience | None = None,
) -> list[Description] | Timeline:
    """Ask a model about an input.

    Args:
        model: answers.
        item: the input; its own prompts win over the task's.
        asked: the task.
        reading: options of how it is read, such as `sandbox`; None for none.
        patience: when a timeline's windows that failed are asked about again; None never.

    Returns:
        One answer per prompt, of one look at the video; or a timeline.

    Raises:
        LlavaVideoError: as `LlavaVideo.describe` and `timeline`.
    """
    prompts = item.prompts or asked.prompts
    span = {"start": item.start_s, "end": item.end_s}
    own = {name: value for name, value in span.items() if value is not None}
    options = cast("Options", {**asked.options, **(reading or {}), **own})
    first = prompts[0] if prompts else None
    if asked.task == "timeline":
        lengths = {"window_s": asked.window_s, "overlap_s": asked.overlap_s}
        given = cast("Any", {name: value for name, value in lengths.items() if value is not None})
        return model.timeline(
            item.address, first, summary=asked.has_summary, patience=patience, **given, **options
        )
    if len(prompts) > 1:
        return model.ask_many(item.address, prompts, **options)
    return [model.describe(item.address, first, **options)]
