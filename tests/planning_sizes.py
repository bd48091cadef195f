"""The sizes of a model → the geometry a planner has of it."""

from dataclasses import replace

from llava_video.model.dimensions import ModelDimensions
from llava_video.model.names import num_parameters
from llava_video.planning.geometry import Geometry


def shaped(geometry: Geometry, dimensions: ModelDimensions, value_bytes: int = 2) -> Geometry:
    """Return the geometry of a model of these sizes."""
    text, vision = dimensions.text, dimensions.vision
    return replace(
        geometry,
        tile_px=vision.image_px,
        patch_px=vision.patch_px,
        canvases=((vision.image_px, 2 * vision.image_px),),
        num_layers=text.num_layers,
        num_heads=text.num_heads,
        num_kv_heads=text.num_kv_heads,
        head_dim=text.head_dim,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        vocab_size=text.vocab_size,
        vision_width=vision.hidden_size,
        vision_intermediate_size=vision.intermediate_size,
        projector_layers=dimensions.projector_layers,
        value_bytes=value_bytes,
        weights_bytes=num_parameters(dimensions) * value_bytes,
    )
