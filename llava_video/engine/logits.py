"""Logits → the next token of each request: greedy or sampled, seeded per request.

The order is that of transformers' generate: repetition penalty over generated tokens, constraint,
then (sampling only) temperature, top-k, top-p, softmax, one draw. Every request draws from a
generator of its own on the CPU, so its answer does not depend on what runs beside it. `sampler.py`
does the same for many requests at once, without waiting for a device. Knows no text.
"""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from llava_video.engine.settings import GenerationSettings

# Below it the most probable token is certain in float32 anyway, and a quotient would overflow.
LEAST_TEMPERATURE = 1e-5


class Uniforms:
    """The uniform numbers of one request, in float64: each is used once, in order.

    Args:
        seed: the request's.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._ahead: deque[float] = deque()

    def next(self) -> float:
        """Use the next number, 0 <= u < 1."""
        self._draw(1)
        return self._ahead.popleft()

    def ahead(self, num: int) -> list[float]:
        """Return the next numbers without using them."""
        self._draw(num)
        return [self._ahead[idx] for idx in range(num)]

    def _draw(self, num: int) -> None:
        missing = num - len(self._ahead)
        if missing > 0:
            drawn = torch.rand(missing, generator=self._generator, dtype=torch.float64)
            self._ahead.extend(drawn.tolist())


class TokenChooser:
    """Chooses the tokens of one request.

    Args:
        generation: the request's settings.
        repetition_penalty: the checkpoint's, used when the settings name none.

    Attributes:
        generation: as given.
        penalty: the repetition penalty in force.
        uniforms: what sampled tokens are drawn with, one number each.
    """

    def __init__(self, generation: GenerationSettings, repetition_penalty: float = 1.0) -> None:
        asked = generation.repetition_penalty
        self.penalty = repetition_penalty if asked is None else asked
        self.generation = generation
        self.uniforms = Uniforms(generation.seed)

    def next_token(
        self, logits: Tensor, generated_ids: Sequence[int], allowed: Tensor | None = None
    ) -> int:
        """Return the next token id.

        Args:
            logits: (vocab,) float32, finite.
            generated_ids: the ids of the answer so far; prompt tokens are never penalised.
            allowed: (vocab,) bool, on the logits' device; None allows all.
        """
        logits = penalize(logits, generated_ids, self.penalty)
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        if self.generation.temperature == 0.0:
            return int(logits.argmax())
        warped = warp(
            logits.cpu(),
            temperature=self.generation.temperature,
            top_k=self.generation.top_k,
            top_p=self.generation.top_p,
        )
        return draw(torch.softmax(warped, dim=-1), self.uniforms.next())

    def skip(self) -> None:
        """Say that a token was chosen elsewhere by the same rules."""
        if self.generation.temperature > 0.0:
            self.uniforms.next()

    def choose_among(self, log_probs: Tensor) -> int:
        """Return the index of one of several whole answers by their log-probabilities.

        Greedy takes the most probable; otherwise one is drawn with a probability in proportion to
        p ** (1 / temperature).

        Args:
            log_probs: (n,) float32 on the CPU.
        """
        if self.generation.temperature == 0.0:
            return int(log_probs.argmax())
        scaled = log_probs / max(self.generation.temperature, LEAST_TEMPERATURE)
        return draw(torch.softmax(scaled, dim=-1), self.uniforms.next())


def penalize(logits: Tensor, generated_ids: Sequence[int], penalty: float) -> Tensor:
    """Make ids that were generated already less probable.

    Positive logits are divided by the penalty, negative ones multiplied, once per distinct id.

    Source: Keskar et al. 2019 (CTRL), section 4.1; negative logits as in transformers'
    RepetitionPenaltyLogitsProcessor. Penalty 1.1 turns 2.2 into 2.0 and -2.0 into -2.2.

    Args:
        logits: (vocab,) float32; not changed.
        generated_ids: ids of the answer so far.
        penalty: > 0; 1 changes nothing.

    Returns:
        (vocab,) float32.
    """
    if penalty == 1.0 or not generated_ids:
        return logits
    seen = torch.tensor(sorted(set(generated_ids)), device=logits.device)
    values = logits[seen]
    logits = logits.clone()
    logits[seen] = torch.where(values < 0, values * penalty, values / penalty)
    return logits


def warp(logits: Tensor, *, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Scale logits by the temperature and drop what top-k and top-p leave out.

    Args:
        logits: (vocab,) float32.
        temperature: > 0.
        top_k: how many are kept (ties with the last are kept too); 0 keeps all.
        top_p: the fewest tokens that together hold at least this share are kept.

    Returns:
        (vocab,) float32, -inf where dropped.
    """
    logits = logits / max(temperature, LEAST_TEMPERATURE)
    if 0 < top_k < len(logits):
        least = torch.topk(logits, top_k).values[-1]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1.0:
        ascending, order = torch.sort(logits, stable=True)  # ties alike alone and in a batch
        # The tail whose share is at most 1 - top_p goes; the most probable token always stays.
        dropped = torch.softmax(ascending, dim=-1).cumsum(dim=-1) <= 1.0 - top_p
        dropped[-1] = False
        logits = logits.masked_fill(dropped.scatter(0, order, dropped), -torch.inf)
    return logits


def draw(probabilities: Tensor, uniform: float) -> int:
    """Draw one index with these probabilities.

    Args:
        probabilities: (n,) float32 on the CPU, summing to 1.
        uniform: 0 <= u < 1.
    """
    cumulative = probabilities.double().cumsum(dim=-1)
    # right=True: a draw of exactly 0 lands on no token of probability 0.
    idx = int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True))
    last = int(probabilities.nonzero()[-1])  # rounding can carry the product up to the whole sum
    return min(idx, last)


def log_probs_of(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probability of one id per row.

    Args:
        logits: (n, vocab) float32.
        ids: (n,) int64 on the same device.

    Returns:
        (n,) float32.
    """
    picked: Tensor = logits.gather(1, ids[:, None])[:, 0]
    return picked - torch.logsumexp(logits, dim=-1)
