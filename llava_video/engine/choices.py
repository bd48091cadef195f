"""A list of choices → the log-probability of each as a whole answer, after one prompt.

log p(choice) = log p(first token | prompt) + … + log p(last token) + log p(end), every token given
those before it, and end meaning any of the end ids; without end ids the last term is left out. The
choice is tokenised alone, as the model would write it. No penalty and no temperature enter. The
probability of a choice among the choices is the softmax of these numbers.

Worked example: p(yes) = 0.5, p(no) = 0.2, p(end | yes) = 0.6, p(end | no) = 1.0 give 0.3 and 0.2:
"yes" is chosen with confidence 0.6.

Each choice is read on a fork of the prompt's sequence, several in one step. Knows no scheduler.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from llava_video.engine.arena import Arena
from llava_video.engine.logits import log_probs_of
from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.engine.step import Work
from llava_video.model.kv_cache import Extent
from llava_video.model.llava import LlavaModel
from llava_video.values import KvFormat

# Choice tokens of one step. Every one needs a row of logits, which at 152,064 columns is 0.6 MB.
_STEP_TOKENS = 64


class _Branch:
    """One choice: a fork of the prompt, and the log-probability of what was read of it."""

    def __init__(self, ids: Sequence[int], extent: Extent) -> None:
        self.ids = list(ids)
        self.extent = extent
        self.sequence: KvSequence | None = None
        self.log_prob = 0.0
        self.num_read = 0

    @property
    def num_left(self) -> int:
        return len(self.ids) - self.num_read


class ChoiceScorer:
    """Scores the choices of one request.

    Args:
        choices: token ids of each choice, none empty.
        arena: where their tokens are reserved, at once.
        eos_ids: ids that end an answer.
        kv_format: how the prompt's tokens are stored, and theirs will be.

    Raises:
        CapacityError: the arena has no room; nothing stays reserved.
    """

    def __init__(
        self,
        choices: Sequence[Sequence[int]],
        arena: Arena,
        eos_ids: Collection[int],
        kv_format: KvFormat = "plain",
    ) -> None:
        self._arena = arena
        self._eos_ids = sorted(eos_ids)
        self._branches: list[_Branch] = []
        self._reading: list[tuple[_Branch, int]] = []
        try:
            for ids in choices:
                self._branches.append(_Branch(ids, arena.reserve(len(ids), kv_format)))
        except BaseException:
            self.release()
            raise

    @property
    def is_done(self) -> bool:
        """Whether every choice was read."""
        return all(not branch.num_left for branch in self._branches)

    @property
    def log_probs(self) -> Tensor:
        """Log-probability of each choice, (n,) float64 on the CPU."""
        return torch.tensor([branch.log_prob for branch in self._branches], dtype=torch.float64)

    def begin(self, prompt: KvSequence, logits: Tensor) -> None:
        """Fork the prompt for each choice.

        Args:
            prompt: all of the prompt; stays the caller's.
            logits: (1, vocab) float32 after it.
        """
        first_ids = torch.tensor([branch.ids[0] for branch in self._branches])
        log_probs = log_probs_of(logits.expand(len(first_ids), -1), first_ids.to(logits.device))
        for branch, log_prob in zip(self._branches, log_probs.tolist(), strict=True):
            branch.log_prob = log_prob
            branch.sequence = prompt.fork()
            branch.sequence.attach(branch.extent)

    def works(self, model: LlavaModel) -> list[Work]:
        """Return the next tokens of as many choices as one step takes."""
        works: list[Work] = []
        self._reading = []
        left = _STEP_TOKENS
        for branch in self._branches:
            num_tokens = min(branch.num_left, left)
            if not num_tokens or branch.sequence is None:
                continue
            ids = branch.ids[branch.num_read : branch.num_read + num_tokens]
            hidden = model.language_model.embed(torch.tensor(ids, device=model.device))
            works.append(Work(sequence=branch.sequence, hidden=hidden, num_logits=num_tokens))
            self._reading.append((branch, num_tokens))
            left -= num_tokens
        return works

    def read(self, logits: Sequence[Tensor]) -> None:
        """Take the logits of `works`, (n, vocab) float32 each."""
        for (branch, num_tokens), rows in zip(self._reading, logits, strict=True):
            start, stop = branch.num_read, branch.num_read + num_tokens
            next_ids = torch.tensor(branch.ids[start + 1 : stop + 1], device=rows.device)
            if len(next_ids):
                branch.log_prob += float(log_probs_of(rows[: len(next_ids)], next_ids).sum())
            branch.num_read = stop
            if not branch.num_left:
                branch.log_prob += self._end_log_prob(rows[-1])
            if branch.sequence is not None:
                branch.sequence.append(num_tokens, completes=branch.ids[start:stop])
        self._reading = []

    def take(self, idx: int) -> KvSequence | None:
        """Hand over the sequence of one choice; the caller releases it."""
        return self._branches.pop(idx).sequence

    def release(self) -> None:
        """Give back what the choices hold."""
        for branch in self._branches:
            if branch.sequence is None:
                self._arena.release(branch.extent)
            else:
                branch.sequence.release()
        self._branches = []

    def _end_log_prob(self, row: Tensor) -> float:
        if not self._eos_ids:
            return 0.0
        ends = row[torch.tensor(self._eos_ids, device=row.device)]
        return float(torch.logsumexp(ends, dim=-1) - torch.logsumexp(row, dim=-1))
