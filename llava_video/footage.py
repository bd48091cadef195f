"""What a model's card says it knows, and what was seen → warnings that the two do not go together.

Only of models that know a closed world: the others were trained on footage of all kinds. Knows no
weight and decodes nothing.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from llava_video.model.card import SMALL_WORLD, ModelCard
from llava_video.preview import DEFAULT_MODEL
from llava_video.video.evidence import Evidence
from llava_video.world.likeness import looks_of, unlike


def footage_warnings(
    card: ModelCard | None, names: Sequence[str], evidence: Sequence[Evidence]
) -> Iterator[str]:
    """Yield a sentence for each visual that is not of the world a model knows.

    Args:
        card: the model's; None says nothing about what it knows.
        names: the visuals, for people.
        evidence: what was seen of each.
    """
    if card is None or card.world != SMALL_WORLD:
        return
    for name, seen in zip(names, evidence, strict=True):
        reason = seen.verdict(_verdict)
        if reason:
            place = f"{name}: " if len(names) > 1 else ""
            yield (
                f"{place}{reason}. The model {card.name!r} knows the small world alone, and "
                f"its words mean nothing here: name a real model, such as {DEFAULT_MODEL}."
            )


def _verdict(thumbnails: npt.NDArray[np.uint8]) -> str:
    reason = unlike(looks_of(thumbnails))
    return reason and reason[0].upper() + reason[1:]
