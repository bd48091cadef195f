"""Context, memory and prompt → how many tokens there may be, and how several videos share them.

Counts only: knows no video, no frame and no tokenizer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llava_video.errors import BudgetError
from llava_video.plan_table import bytes_words
from llava_video.planning.geometry import Geometry
from llava_video.planning.settings import PlanningSettings
from llava_video.values import KvFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a whole request may take.

    Attributes:
        tokens: text, visual and answer tokens together.
        kv_format: how they are cached.
        token_bytes: bytes of one cached token where memory sets the limit, with its row where that
            waits; None where the positions do.
        has_rows: whether it waits.
    """

    tokens: int
    kv_format: KvFormat = "plain"
    token_bytes: int | None = None
    has_rows: bool = False

    @property
    def holder(self) -> str:
        """What sets the limit."""
        return "the context" if self.token_bytes is None else "the memory"

    def note(self, num_tokens: int) -> str:
        """Return the bytes of so many tokens as a note behind their number; "" without bytes."""
        if self.token_bytes is None:
            return ""
        what = f"{self.kv_format} cache{' and waiting rows' * self.has_rows}"
        return f" ({bytes_words(num_tokens * self.token_bytes)} of {what})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What one video may take.

    Attributes:
        total_tokens: visual tokens and time sentence together.
        visual_tokens: visual tokens alone; None when only the total counts.
        time_share: most of `total_tokens` that the time sentence takes unthinned, 0..1.
        limit: of the whole request, which says why the room is no larger.
    """

    total_tokens: int
    visual_tokens: int | None
    time_share: float
    limit: Limit

    @property
    def note_tokens(self) -> int:
        """Tokens the time sentence may take before it lists fewer times."""
        return int(self.total_tokens * self.time_share)


def limit_tokens(geometry: Geometry, position_scale: float) -> int:
    """Return the positions there are: the context, stretched by the position scale."""
    return int(geometry.context_tokens * position_scale)


def free_tokens(
    limit: Limit, planning: PlanningSettings, *, text_tokens: int, image_tokens: int
) -> int:
    """Return what text, answer and pictures leave for the videos and their time sentences.

    Args:
        limit: of the whole request.
        planning: the user's limits.
        text_tokens: tokens of the prompt without time sentences.
        image_tokens: visual tokens of all still pictures.

    Raises:
        BudgetError: text, answer and pictures alone do not fit.
    """
    need_tokens = text_tokens + image_tokens + planning.max_new_tokens
    if need_tokens > limit.tokens:
        raise BudgetError(
            f"text ({text_tokens:,}), pictures ({image_tokens:,}) and answer "
            f"({planning.max_new_tokens:,}) need {need_tokens:,} tokens{limit.note(need_tokens)}, "
            f"{limit.holder} holds "
            f"{limit.tokens:,}{limit.note(limit.tokens)}.",
            need_tokens=need_tokens,
            have_tokens=limit.tokens,
        )
    return limit.tokens - need_tokens


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
