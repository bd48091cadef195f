"""What a model is worth beside one that does not look: noise for frames, and the commonest answer.

Noise goes in where the frames would: the engine is asked the very same request, with the same plan,
times and words, and only the pixels are drawn. Knows no task.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from llava_video.api import LlavaVideo
from llava_video.engine.request import Engine, Event, FusedPart, Part, Request, VisualPart
from llava_video.eval.example import Truth
from llava_video.eval.records import Record
from llava_video.eval.scoring import is_same
from llava_video.values import Clip


class NoiseEngine:
    """Another engine that is shown noise in place of every frame.

    Args:
        engine: answers.
        seed: of the noise; the same request sees the same noise.
    """

    def __init__(self, engine: Engine, seed: int = 0) -> None:
        self._engine = engine
        self._seed = seed

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Answer requests as the other engine does."""
        return self._engine.run(self._blinded(request) for request in requests)

    def _blinded(self, request: Request) -> Request:
        return dataclasses.replace(request, parts=tuple(map(self._part, request.parts)))

    def _part(self, part: Part) -> Part:
        if isinstance(part, VisualPart):
            return self._visual(part)
        if isinstance(part, FusedPart):
            return dataclasses.replace(part, visual=self._visual(part.visual))
        return part

    def _visual(self, part: VisualPart) -> VisualPart:
        # The key names pixels, and the true ones may lie in the cache.
        key = f"noise {self._seed} {part.key}"
        entropy = [self._seed, *part.key.encode()]

        def clips() -> Iterator[Clip]:
            draw = np.random.default_rng(entropy)
            for clip in part.clips():
                frames = draw.integers(0, 256, clip.frames.shape, dtype=np.uint8)
                yield Clip(frames, clip.pts_s, clip.frame_idxs)

        return dataclasses.replace(part, clips=clips, key=key)


def blinded(model: LlavaVideo, seed: int = 0) -> LlavaVideo:
    """Return the same model behind noise; it shares the engine, so leave closing to the model."""
    return LlavaVideo(model.spec, NoiseEngine(model.engine, seed), on_event=model.on_event)


def majority_share(records: Sequence[Record]) -> float:
    """Return how many would be right if everything were answered alike, as well as one answer can.

    It knows the answers, so it is what a guess can reach and not what a guess reaches.

    Args:
        records: with known answers, at least one.
    """
    kinds: dict[tuple[str, str, float, bool], Record] = {}
    counts: Counter[tuple[str, str, float, bool]] = Counter()
    for record in records:
        kind = type(record.answer).__name__
        key = (_said(record.answer), kind, record.tolerance, bool(record.choices))
        kinds[key] = record
        counts[key] += 1
    best = max(
        sum(count for key, count in counts.items() if _is_right(guess, kinds[key]))
        for guess in {said for said, *_ in counts}
    )
    return best / len(records)


def _is_right(guess: str, record: Record) -> bool:
    if record.choices:
        return guess == record.answer
    return is_same(record.answer, guess, record.tolerance)


def _said(answer: Truth) -> str:
    """Return a right answer as it would be written."""
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    return str(answer)
