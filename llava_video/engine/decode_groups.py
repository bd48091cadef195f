"""Which requests may write freely, sorted into one group for each slab.

A request may where any token can come next, its tokens stand in one slab, and the whole decoder on
one device; all others go through plain steps, and get the same tokens. Knows no lock.
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence

import torch

from llava_video.engine.arena import Arena
from llava_video.engine.decode_group import DecodeGroup, num_left_of
from llava_video.engine.job import Job
from llava_video.engine.settings import EngineSettings
from llava_video.engine.step_graphs import StepGraphs, cuda_capture
from llava_video.model.decoder import LanguageModel
from llava_video.model.memory import is_out_of_memory
from llava_video.ops.dispatch import uses_triton

logger = logging.getLogger(__name__)


class DecodeGroups:
    """The groups of one engine.

    Args:
        language_model: the decoder.
        arena: of all sequences.
        settings: the engine's.
        give_back: called when memory has run out; gives back what can be made again.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        arena: Arena,
        settings: EngineSettings,
        give_back: Callable[[], None],
    ) -> None:
        self._language_model = language_model
        self._arena = arena
        self._give_back = give_back
        self._max_rows = settings.max_running
        self._is_on = runs_freely(language_model, settings)
        device = language_model.devices[0]
        is_cuda = device.type == "cuda"
        has_graphs = self._is_on and is_cuda and settings.cuda_graphs == "auto"
        self.graphs = StepGraphs(cuda_capture(device) if has_graphs else None)
        self._groups: dict[int, DecodeGroup] = {}

    def slab_of(self, job: Job) -> int | None:
        """Return the slab in which a request may write freely, or None."""
        writing = job.writing() if self._is_on else None
        if writing is None:
            return None
        sequence, writer = writing
        num_left = num_left_of(writer)
        room = sequence.writable(num_left + 1)
        slabs = {room.slab_idx, *(span.slab_idx for span in sequence.past)}
        return room.slab_idx if len(slabs) == 1 and room.num_tokens > num_left else None

    def launch(self, jobs: dict[Job, int]) -> None:
        """Launch the next token of each request.

        Args:
            jobs: those that write freely, and their slabs.
        """
        self.drop_gone()
        for slab_idx in sorted({*self._groups, *jobs.values()}):
            mine = [job for job, idx in jobs.items() if idx == slab_idx]
            if not self._has_launched(slab_idx, mine):
                self._give_back()
                self._group(slab_idx).launch(mine)

    def _has_launched(self, slab_idx: int, jobs: Sequence[Job]) -> bool:
        """Launch one group's step; return False, with everything as it was, without memory."""
        try:
            self._group(slab_idx).launch(jobs)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("no memory for a step of %d tokens: %s", len(jobs), error)
            return False
        return True

    def _group(self, slab_idx: int) -> DecodeGroup:
        if slab_idx not in self._groups:
            self._groups[slab_idx] = DecodeGroup(
                self._language_model, self._arena, slab_idx, self.graphs, self._max_rows
            )
        return self._groups[slab_idx]

    def deliver(self) -> Iterator[tuple[Job, int]]:
        """Yield the tokens there are: see `DecodeGroup.deliver`."""
        for group in self._groups.values():
            yield from group.deliver()

    def drop_gone(self) -> None:
        """Let go of requests that have ended, and of groups and graphs whose slab is gone."""
        for group in self._groups.values():
            group.forget_ended()
        gone = {idx for idx in self._groups if not self._arena.has_slab(idx)}

        def is_gone(key: Hashable) -> bool:
            return isinstance(key, tuple) and key[0] in gone

        if gone:
            self.graphs.forget(is_gone)
            self._groups = {idx: g for idx, g in self._groups.items() if idx not in gone}

    def clear(self) -> None:
        """Let go of every group in which nothing is under way, and of its graphs."""
        idle = {idx for idx, group in self._groups.items() if group.is_idle}
        self.graphs.forget(lambda key: isinstance(key, tuple) and key[0] in idle)
        self._groups = {idx: group for idx, group in self._groups.items() if idx not in idle}


def runs_freely(language_model: LanguageModel, settings: EngineSettings) -> bool:
    """Say whether requests may write freely at all."""
    device = language_model.devices[0]
    # Without its kernels a GPU would wait for the host in every layer.
    has_kernels = device.type == "cuda" and uses_triton(torch.empty(0, device=device))
    is_wanted = settings.free_running == "on" or (settings.free_running == "auto" and has_kernels)
    # The reference's float32 angles are tables of the host's making.
    is_able = set(language_model.devices) == {device} and settings.rope == "exact"
    return is_wanted and is_able
