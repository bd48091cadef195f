"""A request and a model's own ways → what cannot be asked of it, and what its plan must say.

Image models get a video's frames as pictures; a model that fuses frames with the prompt sees one
visual, and every question anew; a crop hides the sides of what it is given. Knows no budget.
"""

from collections.abc import Iterable, Iterator

from llava_video.errors import ConfigError
from llava_video.planning.geometry import Geometry
from llava_video.values import VisualPlan


def check_visuals(geometry: Geometry, num_visuals: int) -> None:
    """See that the model can take so many videos and pictures in one prompt.

    Raises:
        ConfigError: it fuses its visual with the prompt, and there are several.
    """
    if geometry.compressed_side and num_visuals > 1:
        raise ConfigError(
            f"{num_visuals} videos and pictures, and {geometry.model} fuses one with the prompt.",
            "ask about each of them alone.",
        )


def model_reasons(geometry: Geometry, *, has_video: bool, has_visual: bool) -> Iterator[str]:
    """Yield what sets a model's plans apart from those of models trained on video.

    Args:
        geometry: the model.
        has_video: whether the request has one.
        has_visual: whether it has a video or a picture.
    """
    if has_video and not geometry.is_video_trained:
        yield (
            "This model was not trained on video: each frame is given as a picture of its own, one "
            "after another."
        )
    if has_visual and geometry.compressed_side:
        yield (
            "What is seen is fused with the prompt: another question looks at every frame again, "
            "and no part of the cache is shared."
        )


def crop_warnings(visuals: Iterable[VisualPlan]) -> Iterator[str]:
    """Yield what of each video or picture is not seen, because the model crops it to a square."""
    for visual in visuals:
        if visual.fit != "crop" or visual.height_px == visual.width_px:
            continue
        if visual.is_fused and visual.overview:
            yield (
                f"{visual.source}: this model crops what it is shown to a square, each of "
                f"{visual.grid.rows} x {visual.grid.cols} blocks and the whole of "
                f"{visual.width_px} x {visual.height_px} px: only the middle of each is seen."
            )
        else:
            side_px = min(visual.height_px, visual.width_px)
            yield (
                f"{visual.source}: only the middle {side_px} x {side_px} px of "
                f"{visual.width_px} x {visual.height_px} px are seen, as this model crops what it "
                "is shown to a square."
            )
