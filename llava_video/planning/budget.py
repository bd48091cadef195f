"""Context, prompt and shapes → how many visual tokens there may be, and how many bytes they take.

Counts and bytes only: knows no video, no frame and no tokenizer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llava_video.errors import BudgetError
from llava_video.planning.geometry import Geometry
from llava_video.planning.settings import PlanningSettings
from llava_video.values import MemoryEstimate

# What the engine holds at once when nothing else is set: tiles in the vision tower, tokens of one
# forward pass.
_TILE_CHUNK = 16
_PREFILL_CHUNK_TOKENS = 2048
# Numbers alive at the widest point of a layer, per channel of its input: the residual and its norm,
# and the MLP's inner width (3.7 of the vision tower's, twice; 5.4 of Qwen2-7B's, three times).
_VISION_VALUES = 10
_DECODER_VALUES = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What one video may take.

    Attributes:
        total_tokens: visual tokens and time sentence together.
        visual_tokens: visual tokens alone; None when only the total counts.
        time_share: most of `total_tokens` that the time sentence takes unthinned, 0..1.
    """

    total_tokens: int
    visual_tokens: int | None
    time_share: float

    @property
    def note_tokens(self) -> int:
        """Tokens the time sentence may take before it lists fewer times."""
        return int(self.total_tokens * self.time_share)


def limit_tokens(geometry: Geometry, planning: PlanningSettings) -> int:
    """Return the positions there are: the context, stretched by the position scale."""
    return int(geometry.context_tokens * planning.position_scale)


def free_tokens(
    geometry: Geometry, planning: PlanningSettings, *, text_tokens: int, image_tokens: int
) -> int:
    """Return what text, answer and pictures leave for the videos and their time sentences.

    Args:
        geometry: the model.
        planning: the user's limits.
        text_tokens: tokens of the prompt without time sentences.
        image_tokens: visual tokens of all still pictures.

    Raises:
        BudgetError: text, answer and pictures alone do not fit.
    """
    have_tokens = limit_tokens(geometry, planning)
    need_tokens = text_tokens + image_tokens + planning.max_new_tokens
    if need_tokens > have_tokens:
        raise BudgetError(
            f"text ({text_tokens:,}), pictures ({image_tokens:,}) and answer "
            f"({planning.max_new_tokens:,}) need {need_tokens:,} tokens, the context holds "
            f"{have_tokens:,}.",
            need_tokens=need_tokens,
            have_tokens=have_tokens,
        )
    return have_tokens - need_tokens


def fair_level(wants_tokens: Sequence[int], total_tokens: int) -> int:
    """Return the most each may take so that all stay within the total; small wants leave the rest.

    Grows with the total. The total itself where all wants fit.

    >>> fair_level([100, 900, 800], 1000)  # 100 + 450 + 450
    450
    """
    if sum(wants_tokens) <= total_tokens:
        return total_tokens
    left_tokens = total_tokens
    for idx, want_tokens in enumerate(sorted(wants_tokens)):
        level_tokens = left_tokens // (len(wants_tokens) - idx)
        if want_tokens > level_tokens:
            return level_tokens
        left_tokens -= want_tokens
    raise AssertionError("wants beyond the total, yet each below its share")


def estimate_memory(geometry: Geometry, *, num_tokens: int, num_tiles: int) -> MemoryEstimate:
    """Predict bytes from shapes; activations are a bound for chunked work, not a measurement.

    Args:
        geometry: the model.
        num_tokens: positions that are cached: text, visual and answer.
        num_tiles: tiles of all visuals.
    """
    values_per_token = 2 * geometry.num_layers * geometry.num_kv_heads * geometry.head_dim
    patches = min(num_tiles, _TILE_CHUNK) * geometry.patches_per_side**2
    per_patch = geometry.vision_width + max(
        _VISION_VALUES * geometry.vision_width, 3 * geometry.hidden_size
    )
    per_chunk = min(num_tokens, _PREFILL_CHUNK_TOKENS) * _DECODER_VALUES * geometry.hidden_size
    return MemoryEstimate(
        weights_bytes=geometry.weights_bytes,
        kv_bytes=num_tokens * values_per_token * geometry.kv_bytes_per_value,
        activation_bytes=max(patches * per_patch, per_chunk) * geometry.kv_bytes_per_value,
    )
