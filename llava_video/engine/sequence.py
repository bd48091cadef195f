"""What the cache holds of one request: which tokens, where, at which positions.

A sequence is a list of spans of the arena in the order they are attended to, each with a share in
the memory behind it, so that a prefix is held once however many sequences fork from it. Tokens are
named by elements: a text id, or a whole visual, which is never split. A sequence can be saved to a
file, and read back into any arena of the same sizes. Knows no model and no logits.

Not for two threads at once, save `release` and `fork`, which only take or give back shares.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llava_video.engine.arena import Arena
from llava_video.engine.elements import Element, VisualRun, tokens_of
from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.kv_cache import Extent, KvSpan
from llava_video.model.kv_file import read_metadata, read_tokens, write_metadata, write_tokens
from llava_video.values import KvFormat


@dataclass(frozen=True, slots=True)
class _Share:
    """A part of an extent; holds one reference to the extent."""

    extent: Extent
    span: KvSpan

    def part(self, start: int, stop: int) -> "_Share":
        return _Share(self.extent, self.span.part(start, stop))


class Sequence:
    """Tokens in the cache; made by the engine, kept and released by whoever asked to keep it.

    Args:
        cache: the arena.
        position_scale: positions are index / position_scale.
        kv_format: how the tokens are stored.
    """

    def __init__(
        self, cache: Arena, *, position_scale: float = 1.0, kv_format: KvFormat = "plain"
    ) -> None:
        self._cache = cache
        self.position_scale = position_scale
        self.kv_format = kv_format
        self._elements: list[Element] = []
        self._written: list[_Share] = []
        self._room: list[_Share] = []
        self._num_tokens = 0
        self._sink_tokens = 0  # tokens before the gap that dropping left
        self._dropped_tokens = 0
        self._released = False

    def __repr__(self) -> str:
        return f"Sequence({self._num_tokens} tokens in {len(self._written)} spans)"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    @property
    def elements(self) -> tuple[Element, ...]:
        """What the tokens are; complete whenever no step is under way."""
        return tuple(self._elements)

    @property
    def num_tokens(self) -> int:
        """Tokens that are attended to."""
        return self._num_tokens

    @property
    def next_idx(self) -> int:
        """Index of the next token; larger than `num_tokens` after a drop."""
        return self._num_tokens + self._dropped_tokens

    @property
    def past(self) -> tuple[KvSpan, ...]:
        """Where the tokens are, in order."""
        return tuple(share.span for share in self._written)

    def is_in(self, cache: Arena) -> bool:
        """Whether the tokens stand in this arena; a model cannot read another one's."""
        return self._cache is cache

    def num_shared(self, elements: Iterable[Element]) -> int:
        """Count the leading elements that this sequence holds too, at the same positions."""
        if self._dropped_tokens:
            return 0
        num = 0
        for mine, theirs in zip(self._elements, elements, strict=False):
            if mine != theirs:
                break
            num += 1
        return num

    def reserve(self, num_tokens: int, *, wanted_tokens: int = 0) -> None:
        """Make room for more tokens, in the slab of those before them if it has so many.

        Args:
            num_tokens: how many.
            wanted_tokens: as in `KvCache.reserve`.

        Raises:
            CapacityError: the arena has none; the sequence is as it was.
        """
        self._check_alive()
        if num_tokens:
            near = self._written[-1].span.slab_idx if self._written else None
            extent = self._cache.reserve(
                num_tokens, self.kv_format, near=near, wanted_tokens=wanted_tokens
            )
            self.attach(extent)

    def attach(self, extent: Extent) -> None:
        """Take over an extent, and the caller's reference to it, as room for more tokens.

        Raises:
            ValueError: its places are of another format than the sequence.
        """
        kv_format = self._cache.format_of(extent.span)
        if kv_format != self.kv_format:
            raise ValueError(f"room for {kv_format} tokens in a sequence of {self.kv_format} ones.")
        self._room.append(_Share(extent, extent.span))

    def writable(self, num_tokens: int) -> KvSpan:
        """Return where the next tokens go: one span of at most this many, at least one."""
        span = self._room[0].span
        return span.part(0, min(span.num_tokens, num_tokens))

    def append(self, num_tokens: int, completes: Iterable[Element] = ()) -> None:
        """Say that the next tokens were written to `writable(num_tokens)`.

        Args:
            num_tokens: as many as that span holds.
            completes: the elements that end with them.
        """
        room = self._room[0]
        if num_tokens == room.span.num_tokens:
            self._room.pop(0)  # its reference goes to what was written
        else:
            self._cache.retain(room.extent)
            self._room[0] = room.part(num_tokens, room.span.num_tokens)
        self._written.append(room.part(0, num_tokens))
        self._join_last()
        self._num_tokens += num_tokens
        self._elements.extend(completes)

    def fork(self, num_elements: int | None = None) -> "Sequence":
        """Return a sequence of the first elements (None for all) in the same memory, without room.

        Raises:
            ConfigError: this sequence was released.
        """
        self._check_alive()
        twin = Sequence(self._cache, position_scale=self.position_scale, kv_format=self.kv_format)
        twin._elements = list(self._elements)
        twin._written = list(self._written)
        twin._num_tokens = self._num_tokens
        twin._sink_tokens = self._sink_tokens
        twin._dropped_tokens = self._dropped_tokens
        for share in twin._written:
            self._cache.retain(share.extent)
        if num_elements is not None:
            twin.truncate(num_elements)
        return twin

    def truncate(self, num_elements: int) -> None:
        """Forget all but the first elements, and give back the room."""
        self._check_alive()
        self._elements = self._elements[:num_elements]
        num_tokens = tokens_of(self._elements)
        self._cut(num_tokens, self._num_tokens)
        if self._num_tokens <= self._sink_tokens:
            self._dropped_tokens = 0
        self.trim()

    def drop_oldest(self, num_elements: int, *, num_sinks: int = 0) -> None:
        """Forget elements from the front; those behind keep their positions.

        Args:
            num_elements: how many to forget.
            num_sinks: first elements that stay, the same at every drop.

        Raises:
            ConfigError: a different number of sinks than before, or fewer elements than asked.
        """
        self._check_alive()
        sink_tokens = tokens_of(self._elements[:num_sinks])
        if self._dropped_tokens and sink_tokens != self._sink_tokens:
            raise ConfigError(f"num_sinks = {num_sinks} is not that of the last drop.", "keep it.")
        if num_sinks + num_elements > len(self._elements):
            raise ConfigError(
                f"cannot drop {num_elements} elements behind {num_sinks} of {len(self._elements)}.",
                "drop fewer.",
            )
        dropped = self._elements[num_sinks : num_sinks + num_elements]
        num_tokens = tokens_of(dropped)
        self._cut(sink_tokens, sink_tokens + num_tokens)
        del self._elements[num_sinks : num_sinks + num_elements]
        self._sink_tokens = sink_tokens
        self._dropped_tokens += num_tokens

    def save(self, path: str | Path, **facts: str) -> None:
        """Write all tokens to a safetensors file, bit for bit, for `load_sequence`.

        Args:
            path: the file; what is there is replaced when all is written.
            facts: what else the file should say, for whoever reads it.

        Raises:
            CheckpointError: the file cannot be written.
            ConfigError: the sequence was released, is empty, or ends within a visual.
        """
        self._check_alive()
        if not self._num_tokens or tokens_of(self._elements) != self._num_tokens:
            raise ConfigError(
                f"{self._num_tokens} tokens of {len(self._elements)} whole elements.",
                "save a sequence that holds something and is not being written.",
            )
        described = {
            "elements": [_json_of(element) for element in self._elements],
            "position_scale": self.position_scale,
            "sink_tokens": self._sink_tokens,
            "dropped_tokens": self._dropped_tokens,
        }
        metadata = {"sequence": json.dumps(described), "facts": json.dumps(facts)}
        write_tokens(path, self._cache, self.past, metadata)

    def trim(self) -> None:
        """Give back the room that was not written."""
        for share in self._room:
            num_written = share.span.start - share.extent.span.start
            if num_written:
                self._cache.shrink(share.extent, num_written)
        self._give_back(self._room)
        self._room = []

    def release(self) -> None:
        """Give back all memory; the sequence is of no use afterwards. Twice does no harm."""
        if not self._released:
            self._released = True
            self._give_back(self._written + self._room)
            self._written, self._room = [], []

    def _cut(self, start: int, stop: int) -> None:
        """Forget the tokens [start, stop), counted as they are attended to."""
        kept: list[_Share] = []
        begin = 0
        for share in self._written:
            end = begin + share.span.num_tokens
            sides = [
                share.part(first - begin, last - begin)
                for first, last in ((begin, min(end, start)), (max(begin, stop), end))
                if first < last
            ]
            if len(sides) == 2:
                self._cache.retain(share.extent)
            if not sides:
                self._cache.release(share.extent)
            kept.extend(sides)
            begin = end
        self._written = kept
        self._num_tokens -= max(0, stop - start)

    def _join_last(self) -> None:
        """Make one span of the last two where they touch, so that decoding adds no spans."""
        if len(self._written) < 2:
            return
        left, right = self._written[-2:]
        if left.extent == right.extent and left.span.stop == right.span.start:
            joined = KvSpan(left.span.slab_idx, left.span.start, right.span.stop)
            self._written[-2:] = [_Share(left.extent, joined)]
            self._cache.release(right.extent)

    def _give_back(self, shares: Iterable[_Share]) -> None:
        for share in shares:
            self._cache.release(share.extent)

    def _check_alive(self) -> None:
        if self._released:
            raise ConfigError("the sequence was released.", "keep it until its last use.")


def save_facts(path: str | Path, **facts: str) -> None:
    """Write a file of facts alone, without a sequence; otherwise as `Sequence.save`."""
    write_metadata(path, {"facts": json.dumps(facts)})


def load_facts(path: str | Path) -> dict[str, str] | None:
    """Return what `save_facts` wrote; None of a file that holds a sequence.

    Raises:
        CheckpointError: the file is damaged, or says nothing.
    """
    metadata, has_tokens = read_metadata(path)
    try:
        return None if has_tokens else _facts_of(metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as cause:
        raise CheckpointError(
            f"{path} holds no tokens and says nothing ({cause!r}).", "save it again."
        ) from cause


def load_sequence(cache: Arena, path: str | Path) -> tuple[Sequence, dict[str, str]]:
    """Read a sequence that was saved.

    Args:
        cache: the arena it goes to, of the same sizes.
        path: a file of `Sequence.save`.

    Returns:
        The sequence, without room, and the facts that were saved with it.

    Raises:
        CapacityError: the arena has no room for it.
        CheckpointError: the file is damaged, or of a model of other sizes or dtype.
    """
    extent, metadata = read_tokens(path, cache)
    try:
        described = json.loads(metadata["sequence"])
        facts = _facts_of(metadata)
        sequence = Sequence(
            cache,
            position_scale=_checked_scale(described["position_scale"]),
            kv_format=cache.format_of(extent.span),
        )
        sequence._elements = [_element_of(value) for value in described["elements"]]
        sequence._sink_tokens = _checked_count(described["sink_tokens"])
        sequence._dropped_tokens = _checked_count(described["dropped_tokens"])
        if tokens_of(sequence._elements) != extent.num_tokens:
            raise ValueError(f"elements of other than {extent.num_tokens} tokens")
    except (AttributeError, KeyError, TypeError, ValueError) as cause:
        cache.release(extent)
        raise CheckpointError(
            f"{path} does not say what its tokens are ({cause!r}).", "save the sequence again."
        ) from cause
    sequence._written = [_Share(extent, extent.span)]
    sequence._num_tokens = extent.num_tokens
    return sequence, facts


def _facts_of(metadata: Mapping[str, str]) -> dict[str, str]:
    return {str(name): str(fact) for name, fact in json.loads(metadata["facts"]).items()}


def _json_of(element: Element) -> int | list[Any]:
    return [element.key, element.num_tokens] if isinstance(element, VisualRun) else element


def _element_of(value: Any) -> Element:
    if isinstance(value, list):
        key, num_tokens = value
        return VisualRun(str(key), _checked_count(num_tokens))
    return _checked_count(value)


def _checked_count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _checked_scale(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(f"position_scale is {value!r}")
    return float(value)
