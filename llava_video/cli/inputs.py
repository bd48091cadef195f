"""File names as typed → which of them can be read at all, before a model is loaded for them.

Loading takes minutes: what is wrong already must not wait for it. Knows no command.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llava_video.cli.console import Console
from llava_video.cli.loading import SERVED
from llava_video.errors import LlavaVideoError
from llava_video.options import SCAN_OPTIONS, settings_of
from llava_video.preview import plan_video
from llava_video.video.source import open_source

ALL_WELL, FAILED, SOME_FAILED = 0, 1, 3


def exit_status(num_failed: int, num_inputs: int) -> int:
    """Return 0 when all went well, 1 when nothing did, 3 when some of several failed."""
    if num_failed == 0:
        return ALL_WELL
    return FAILED if num_failed == num_inputs else SOME_FAILED


def is_url(file: str) -> bool:
    """Say whether a name is fetched rather than opened."""
    return "://" in file or file.startswith("data:")


def refuse_early(
    console: Console,
    files: Sequence[str],
    prompt: str | None,
    model: Mapping[str, Any],
    keywords: Mapping[str, Any],
) -> bool:
    """Find out whether there is anything to load a model for.

    One file is planned, which finds everything but damaged pixels; of several each is looked for,
    since the others are to be described anyway. What has to be fetched is not tried twice. A server
    loads nothing: there a plan is made as soon as it is asked.

    Args:
        console: is told what is wrong when none of several files can be opened.
        files: as typed.
        prompt: the question.
        model: what names a model, and what it may take.
        keywords: of the request.

    Returns:
        Whether to go on.

    Raises:
        LlavaVideoError: the reason why the only file cannot be described.
    """
    if any(map(is_url, files)):
        return True
    if len(files) == 1 and model.get("engine") != SERVED:
        plan_video(files[0], prompt, **_known_of(model), **_unscanned(keywords))
        return True
    errors = {file: error for file in files if (error := _opening_error(file)) is not None}
    if len(errors) < len(files):
        return True
    for file, error in errors.items():
        console.error(error, about=file)
    return False


def _unscanned(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords without a look through the video, which is not worth doing twice."""
    sampling = settings_of(keywords).sampling
    dropped = set(SCAN_OPTIONS) if sampling.needs_scan else set()
    return {name: value for name, value in keywords.items() if name not in dropped}


def _known_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a model before it is loaded; memory counts where the device is."""
    names = ["model", "revision", "base", "vision_tower", "adapter", "merge_adapter", "template"]
    if model.get("device", "auto") != "auto":
        names += ["device", "dtype", "memory", "quantize"]
    return {name: model[name] for name in names if model.get(name) is not None}


def _opening_error(file: str) -> LlavaVideoError | None:
    try:
        open_source(file)
    except LlavaVideoError as error:
        return error
    return None
