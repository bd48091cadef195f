"""A packed batch of pairs → how much likelier the chosen answer has become, and the loss of it.

Source: Direct Preference Optimization (Rafailov et al. 2023) as LLaVA-NeXT-Video-DPO was trained
with it. The log-probability of an answer is the sum over its tokens, its end included, in float32;
what it was before is asked of the model that the stage began with. Knows no file and no loop.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from llava_video.errors import ConfigError
from llava_video.model.labels import IGNORED
from llava_video.model.llava import LlavaModel
from llava_video.train.forward import TrainingModel
from llava_video.train.packing import Share
from llava_video.train.settings import DpoSettings
from llava_video.values import VisualPlan


class PreferenceModel(TrainingModel):
    """A `LlavaModel` and what it was, as `Trainer` calls them.

    Args:
        model: shared with the caller; its parameters are what is trained.
        reference: of `frozen_copy`.
        dpo: how the loss is made.
        position_scale: position = index / scale, as in a request.
    """

    def __init__(
        self,
        model: LlavaModel,
        reference: LlavaModel,
        dpo: DpoSettings,
        *,
        position_scale: float = 1.0,
    ) -> None:
        super().__init__(model, position_scale=position_scale)
        self.reference = TrainingModel(reference, position_scale=position_scale)
        self.dpo = dpo

    def forward(  # type: ignore[override]  # pairs come from files: no frames of the small world
        self,
        ids: torch.Tensor,
        labels: torch.Tensor,
        tiles: torch.Tensor,
        plans: Sequence[VisualPlan],
        shares: Sequence[Share],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, Any]:
        """Return {"loss": a scalar, "rewards": (P, 2) without gradient} of a batch of P pairs.

        Args:
            ids: of the batch, see `forward.Batch`.
            labels: of the batch.
            tiles: of the batch.
            plans: of the batch.
            shares: of the batch; each has two tails, the chosen answer first.
            num_items_in_batch: pairs of all batches of one optimiser's step, which the sum is
                divided by; None for this batch's own.

        Raises:
            ConfigError, CheckpointError: as `TrainingModel.forward`; or a share is no pair.
        """
        batch = (ids, labels, tiles, plans, shares)
        # Nothing of it learns, so nothing is kept; the ops run as they do for the other.
        before, _ = answer_log_probs(self.reference, *batch)
        now, num_tokens = answer_log_probs(self, *batch)
        losses, rewards = preference_losses(now, before, self.dpo)
        if self.dpo.chosen_weight:
            losses = losses - self.dpo.chosen_weight * now[:, 0] / num_tokens[:, 0]
        num_pairs = len(shares) if num_items_in_batch is None else num_items_in_batch
        return {"loss": self.reaching(losses.sum() / num_pairs), "rewards": rewards.detach()}


def answer_log_probs(
    net: TrainingModel,
    ids: torch.Tensor,
    labels: torch.Tensor,
    tiles: torch.Tensor,
    plans: Sequence[VisualPlan],
    shares: Sequence[Share],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how likely a model thinks each answer, and how many tokens it has.

    Args:
        net: whose opinion.
        ids: of a batch of P pairs, see `forward.Batch`.
        labels: of the batch.
        tiles: of the batch.
        plans: of the batch.
        shares: of the batch.

    Returns:
        (P, 2) float32 sums of log-probabilities, chosen and rejected; (P, 2) numbers of tokens.

    Raises:
        ConfigError: a share has other than two tails.
    """
    if any(len(share.tails) != 2 for share in shares):
        raise ConfigError("a batch holds examples that are no pairs.", "make them by PairMaker.")
    rows = net.spliced(ids, net.visuals(plans, tiles))
    logits, targets = net.learned_logits(net.hidden_rows(rows, net.keys(shares)), labels)
    log_probs = -F.cross_entropy(logits.float(), targets, reduction="none")
    begins = torch.tensor([tail for share in shares for tail in share.tails], device=labels.device)
    places = torch.nonzero(labels[1:] != IGNORED)[:, 0] + 1
    answers = (torch.searchsorted(begins, places, right=True) - 1).to(log_probs.device)
    zeros = log_probs.new_zeros(len(begins))
    sums = zeros.index_add(0, answers, log_probs)
    num_tokens = zeros.index_add(0, answers, torch.ones_like(log_probs))
    return sums.view(-1, 2), num_tokens.view(-1, 2)


def preference_losses(
    now: torch.Tensor, before: torch.Tensor, dpo: DpoSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return -log sigmoid(reward of the chosen - of the rejected answer), and the rewards.

    A reward is beta times the rise of the answer's log-probability.

    Args:
        now: (P, 2) log-probabilities of chosen and rejected answers, of the model that learns.
        before: (P, 2) of the model that it was.
        dpo: beta and label smoothing.

    Returns:
        (P,) losses; (P, 2) rewards.

    >>> preference_losses(torch.zeros(1, 2), torch.zeros(1, 2), DpoSettings())[0]  # log 2
    tensor([0.6931])
    """
    rewards = dpo.beta * (now - before)
    margins = rewards[:, 0] - rewards[:, 1]
    losses = -(1 - dpo.label_smoothing) * F.logsigmoid(margins)
    if dpo.label_smoothing:
        losses = losses - dpo.label_smoothing * F.logsigmoid(-margins)
    return losses, rewards


def frozen_copy(model: LlavaModel) -> LlavaModel:
    """Return a model that stays what the given one is now, whatever is learned.

    What is frozen is not copied: both have the same layers and tensors, so that beside low-rank
    changes alone it costs no memory, on a device neither.

    Args:
        model: after `set_learning`, before `add_lora`.
    """
    shared: list[Any] = [p for p in model.parameters() if not p.requires_grad]
    frozen = [m for m in model.modules() if not any(p.requires_grad for p in m.parameters())]
    # Single layers, as their buffers would part on the way to a device. What holds layers is the
    # copy's own: `add_lora` changes it. A tower is whole: what `set_learning` did is bound to it.
    shared += [m for m in frozen if m is model.vision_tower or not list(m.children())]
    made = copy.deepcopy(model, {id(one): one for one in shared})
    return made.requires_grad_(False)
