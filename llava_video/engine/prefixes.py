"""What ended requests leave in the cache: the prompt of each up to its last visual, for the next.

A second question about the same visuals then computes its own words only. The memory is shared with
whoever else holds it, and is given back, oldest first, when something else needs it. Knows no
request; the scheduler calls it in its turn.
"""

from collections.abc import Sequence

from llava_video.engine.elements import Element, VisualRun
from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.values import KvFormat


class KeptPrefixes:
    """Prefixes that end with a visual, oldest first.

    Args:
        most: how many; 0 keeps none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[KvSequence] = []

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, sequence: KvSequence, prompt: Sequence[Element]) -> None:
        """Keep what a sequence holds of its prompt up to the last visual, if there is one.

        Args:
            sequence: holds all of the prompt; stays the caller's.
            prompt: its first elements.
        """
        num_elements = _up_to_last_visual(prompt)
        if not self._most or not num_elements:
            return
        prefix = sequence.fork(num_elements)
        for other in [kept for kept in self._kept if _is_alike(kept, prefix)]:
            shorter, longer = sorted((other, prefix), key=lambda kept: len(kept.elements))
            if longer.num_shared(shorter.elements) == len(shorter.elements):
                # What the shorter one saves, the longer one saves too.
                self._kept.remove(other)
                shorter.release()
                prefix = longer
        self._kept.append(prefix)
        while len(self._kept) > self._most:
            self.evict()

    def find(
        self, prompt: Sequence[Element], position_scale: float, kv_format: KvFormat
    ) -> KvSequence | None:
        """Return the prefix that saves the most of a prompt, at least one visual; it stays kept."""
        best, most_shared = None, 0
        for kept in self._kept:
            if (kept.position_scale, kept.kv_format) != (position_scale, kv_format):
                continue
            num_shared = kept.num_shared(prompt)
            if num_shared > most_shared and _up_to_last_visual(prompt[:num_shared]):
                best, most_shared = kept, num_shared
        return best

    def evict(self, spare: KvSequence | None = None) -> bool:
        """Give back the oldest one that is not `spare`; return whether there was one."""
        for kept in self._kept:
            if kept is not spare:
                self._kept.remove(kept)
                kept.release()
                return True
        return False

    def clear(self) -> None:
        """Give back all of them."""
        while self.evict():
            pass


def _up_to_last_visual(elements: Sequence[Element]) -> int:
    """Count the elements up to and including the last visual; 0 without one."""
    for idx in range(len(elements), 0, -1):
        if isinstance(elements[idx - 1], VisualRun):
            return idx
    return 0


def _is_alike(one: KvSequence, other: KvSequence) -> bool:
    return (one.position_scale, one.kv_format) == (other.position_scale, other.kv_format)
