"""Records → packed batches in an order that depends on seed and epoch alone.

Source of the grouping: LLaVA's trainer (mega-batches sorted by length; text, pictures and videos
apart). A record that breaks is counted and replaced by the next that does not, so that every batch
has its number of examples whatever is on the disk.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch.utils.data import Dataset, Sampler

from llava_video.errors import ExampleError
from llava_video.train.examples import ExampleMaker
from llava_video.train.forward import Batch, Example, pack
from llava_video.train.mixture import Record
from llava_video.train.settings import DataSettings

# Batches that are sorted by length together, as in the original.
_MEGA = 50
# So many broken records one behind the other are no accident.
_MOST_BROKEN = 100
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Made:
    """An example, and the kinds of broken records passed over on the way to it."""

    example: Example
    broken: tuple[str, ...]


class CountedBatch(Batch):
    """A batch with the kinds of the records that were passed over for it."""

    broken: list[str]


class Examples(Dataset[Made]):
    """The examples of a mixture, by number.

    Args:
        maker: makes them.
        records: of `read_mixture`.
        data: what becomes of those that break.
    """

    def __init__(self, maker: ExampleMaker, records: Sequence[Record], data: DataSettings) -> None:
        self._maker, self._data = maker, data
        self.records = records

    def __len__(self) -> int:
        """Return the examples of one epoch."""
        return len(self.records)

    def order(self, batch_size: int, seed: int) -> "GroupedOrder":
        """Return the order of an epoch.

        Args:
            batch_size: examples of one step of all devices.
            seed: of the order.
        """
        return GroupedOrder(self.records, batch_size, self._data.group_by, seed)

    def __getitem__(self, idx: int) -> Made:
        """Return an example; where it breaks, the next that does not.

        Raises:
            ExampleError: the settings say so, or all that follow break too.
        """
        num = len(self.records)
        following = (self.records[(idx + step) % num] for step in range(num))
        return first_good(
            self._maker.example, following, self._data, "see llava-video train --check."
        )


def first_good(
    make: Callable[[T], Example], things: Iterable[T], data: DataSettings, hint: str = ""
) -> Made:
    """Return the example of the first of some things that does not break.

    Args:
        make: makes an example of one.
        things: at least one; no more than a hundred are tried.
        data: what becomes of those that break.
        hint: what else to do where all do.

    Raises:
        ExampleError: the settings say so, or all break.
    """
    broken: list[str] = []
    for thing in itertools.islice(things, _MOST_BROKEN):
        try:
            return Made(make(thing), tuple(broken))
        except ExampleError as error:
            what = data.too_long if error.kind == "too long" else data.broken
            if what == "error":
                raise
            broken.append(error.kind)
            last = error
    raise ExampleError(
        f"{len(broken)} examples one behind the other cannot be learned from; the last: "
        f"{last.message}",
        f"{last.hint} {hint}".strip(),
        last.kind,
    )


def collate(made: Sequence[Made]) -> CountedBatch:
    """Pack examples into one batch."""
    batch = pack([one.example for one in made])
    return CountedBatch(**batch, broken=[kind for one in made for kind in one.broken])


class GroupedOrder(Sampler[int]):
    """The order of an epoch: random, batches of like examples.

    Args:
        records: of the mixture.
        batch_size: examples of one step of all devices, which are made alike.
        group_by: see `DataSettings`.
        seed: with the epoch it gives the order.
    """

    def __init__(
        self, records: Sequence[Record], batch_size: int, group_by: str, seed: int
    ) -> None:
        self._kinds = [record.modality if group_by == "modality" else "" for record in records]
        self._words = [record.num_words if group_by != "none" else 0 for record in records]
        self._batch_size, self._seed = batch_size, seed
        self._is_grouped = group_by != "none"
        self.epoch = 0

    def __len__(self) -> int:
        """Return the examples of an epoch."""
        return len(self._kinds)

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next pass gives."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield every number once."""
        generator = random.Random(f"{self._seed} {self.epoch}")
        if not self._is_grouped:
            order = list(range(len(self)))
            generator.shuffle(order)
            return iter(order)
        batches: list[list[int]] = []
        rest: list[int] = []
        for kind in sorted(set(self._kinds)):
            own = [idx for idx, one in enumerate(self._kinds) if one == kind]
            generator.shuffle(own)
            whole = len(own) - len(own) % self._batch_size
            batches += self._by_length(own[:whole])
            rest += own[whole:]
        generator.shuffle(rest)
        batches += self._by_length(rest)
        # The last one may be short, which only the end may be.
        last = [batches.pop()] if batches and len(batches[-1]) < self._batch_size else []
        generator.shuffle(batches)
        return (idx for batch in [*batches, *last] for idx in batch)

    def _by_length(self, order: list[int]) -> list[list[int]]:
        """Sort mega-batches by length, and cut them into batches."""
        size = self._batch_size * _MEGA
        for start in range(0, len(order), size):
            order[start : start + size] = sorted(
                order[start : start + size], key=lambda idx: -self._words[idx]
            )
        step = self._batch_size
        return [order[start : start + step] for start in range(0, len(order), step)]
