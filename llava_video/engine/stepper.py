"""The running requests → one step of all of them: prompts in chunks, answers by a token.

What writes freely is launched first and read last (`decode_groups.py`); everything else goes
through one plain forward, and its logits are given back to the requests. Knows no queue and no
thread: the scheduler calls it in its turn.
"""

import itertools
from collections.abc import Sequence

import torch

from llava_video.engine.arena import Arena
from llava_video.engine.decode_groups import DecodeGroups
from llava_video.engine.diagnosis import diagnose, finite_rows
from llava_video.engine.failing import failing
from llava_video.engine.job import Job
from llava_video.engine.prefixes import KeptPrefixes
from llava_video.engine.settings import EngineSettings
from llava_video.engine.step import Work
from llava_video.engine.step_runner import StepRunner
from llava_video.model.decoder import LanguageModel


class Stepper:
    """Runs the steps of one engine.

    Args:
        language_model: the decoder.
        arena: of all sequences.
        prefixes: what may be given back when memory runs out.
        settings: the engine's.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        arena: Arena,
        prefixes: KeptPrefixes,
        settings: EngineSettings,
    ) -> None:
        self._language_model = language_model
        self._arena = arena
        self._prefixes = prefixes
        self._runner = StepRunner(
            language_model, arena, settings.prefill_chunk_tokens, self._give_back
        )
        self._groups = DecodeGroups(language_model, arena, settings, self._runner.give_back)

    def step(self, jobs: Sequence[Job]) -> None:
        """Take every request one step further; one that fails is told so.

        Raises:
            CapacityError: there is no memory for the step.
        """
        slabs = {job: idx for job in jobs if (idx := self._groups.slab_of(job)) is not None}
        self._groups.launch(slabs)
        self._forward([job for job in jobs if job not in slabs])
        for job, token_id in self._groups.deliver():
            with failing(job):
                if token_id < 0:
                    self._fail_not_finite(job, job.works(1)[0])
                job.take(token_id)

    def drop_gone(self) -> None:
        """Let go of requests that have ended and of what belongs to memory that is gone."""
        self._groups.drop_gone()

    def _forward(self, jobs: Sequence[Job]) -> None:
        batch = self._gather(jobs)
        works = [work for _, brought in batch for work in brought]
        if not works:
            return
        logits = self._runner.run(works)
        finite = iter(finite_rows(logits))
        parts = iter(torch.split(logits, [work.num_logits for work in works]))
        for job, brought in batch:
            rows = [next(parts) for _ in brought]
            are_finite = [all(itertools.islice(finite, len(row))) for row in rows]
            with failing(job):
                if not all(are_finite):
                    self._fail_not_finite(job, brought[are_finite.index(False)])
                job.receive(brought, rows)

    def _fail_not_finite(self, job: Job, work: Work) -> None:
        raise diagnose(self._language_model, self._arena, work, job.is_visual)

    def _gather(self, jobs: Sequence[Job]) -> list[tuple[Job, list[Work]]]:
        """Ask every request for its part of the step; prompts share one chunk fairly.

        Of those that are fused with their frames the first has its turn, until it is read: one
        vision call a step, and one prompt's rows held at a time.
        """
        behind = [job for job in jobs if job.is_fused][1:]
        jobs = [job for job in jobs if job not in behind]
        batch: list[tuple[Job, list[Work]]] = []
        for job, share in zip(jobs, self._shares(jobs), strict=True):
            with failing(job):
                works = job.works(share)
                if works:
                    batch.append((job, works))
        return batch

    def _shares(self, jobs: Sequence[Job]) -> list[int]:
        """Share the prefill chunk among requests: equally, shortest prompts first."""
        lefts = [job.prefill_left_tokens for job in jobs]
        shares = [0] * len(lefts)
        chunk_tokens = self._runner.chunk_tokens
        prefilling = sorted((left, idx) for idx, left in enumerate(lefts) if left)
        for num_done, (left, idx) in enumerate(prefilling):
            equal = -(-chunk_tokens // (len(prefilling) - num_done))
            shares[idx] = min(left, equal)
            chunk_tokens -= shares[idx]
        return shares

    def _give_back(self) -> None:
        """Free what can be made again."""
        self._prefixes.clear()
        self._groups.clear()
        self._arena.free_empty_slabs()
