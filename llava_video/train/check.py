"""A mixture → what is in it, before anything is trained: every file opened, every token counted.

Of a video one frame is decoded, a picture whole; of a folder of frames the first one whole, of the
others the headers. Knows no weights.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from llava_video.errors import ExampleError
from llava_video.train.examples import ExampleMaker, Measure
from llava_video.train.mixture import Record

_MOST_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class Broken:
    """An example that cannot be learned from.

    Attributes:
        name: which one.
        kind: what it is counted under.
        message: what was found.
    """

    name: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """What a mixture holds.

    Attributes:
        num_examples: in one epoch, broken ones among them.
        num_by_modality: how many of them show text alone, pictures, videos.
        num_broken: how many of them cannot be learned from.
        broken: each of these once.
        tokens: least, median and most tokens of the others.
        total_tokens: of all others.
        visual_share: share of these that are visual.
        learned_share: share of these that are learned.
    """

    num_examples: int
    num_by_modality: dict[str, int]
    num_broken: int
    broken: tuple[Broken, ...]
    tokens: tuple[int, int, int]
    total_tokens: int
    visual_share: float
    learned_share: float

    def lines(self) -> list[str]:
        """Return the report for people; the first broken examples are named."""
        shown = ", ".join(f"{num:,} {kind}" for kind, num in self.num_by_modality.items())
        least, median, most = self.tokens
        lines = [
            f"{self.num_examples:,} examples: {shown}.",
            f"{self.total_tokens:,} tokens, {self.visual_share:.1%} visual, "
            f"{self.learned_share:.1%} learned; {least:,} to {most:,} an example, "
            f"half of them below {median:,}.",
        ]
        kinds = Counter(one.kind for one in self.broken)
        counted = ", ".join(f"{num} {kind}" for kind, num in kinds.most_common())
        lines.append(f"{len(self.broken):,} broken{': ' + counted if counted else ''}.")
        lines += [f"  {one.message}" for one in self.broken[:_MOST_NAMED]]
        num_left = len(self.broken) - _MOST_NAMED
        return lines if num_left <= 0 else [*lines, f"  and {num_left:,} more: --json names all."]


def check_data(
    maker: ExampleMaker,
    records: Sequence[Record],
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Look into every record; one that is in the mixture several times, once.

    Args:
        maker: opens, plans and labels.
        records: of `read_mixture`.
        progress: called after each with (done, all).
    """
    times = Counter(map(_identity, records))
    unique = list({_identity(record): record for record in records}.values())
    broken: list[Broken] = []
    num_broken = 0
    measures: list[tuple[Measure, int]] = []
    for idx, record in enumerate(unique):
        try:
            measures.append((maker.measure(record), times[_identity(record)]))
        except ExampleError as error:
            broken.append(Broken(record.name, error.kind, error.message))
            num_broken += times[_identity(record)]
        if progress:
            progress(idx + 1, len(unique))
    lengths = [one.num_tokens for one, num in measures for _ in range(num)]
    total = sum(lengths)
    visual = sum(one.num_visual * num for one, num in measures)
    learned = sum(one.num_learned * num for one, num in measures)
    return DataReport(
        num_examples=len(records),
        num_by_modality=dict(Counter(record.modality for record in records)),
        num_broken=num_broken,
        broken=tuple(broken),
        tokens=_spread(lengths),
        total_tokens=total,
        visual_share=visual / max(1, total),
        learned_share=learned / max(1, total),
    )


def _identity(record: Record) -> tuple[str, str]:
    """Say which record it is: sources of one file may have their pictures in different folders."""
    return record.name, record.folder


def _spread(lengths: Sequence[int]) -> tuple[int, int, int]:
    if not lengths:
        return 0, 0, 0
    return min(lengths), round(statistics.median(lengths)), max(lengths)
