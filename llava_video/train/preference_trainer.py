"""`StageTrainer` for pairs: a step is a mean over pairs, and its metrics have the rewards.

Of the pairs since the last line: the mean reward of chosen and rejected answers, of their
difference (the margin), and the share whose chosen answer has the larger one (the accuracy).
"""

from typing import Any

import torch

from llava_video.train.trainer import StageTrainer


class PreferenceTrainer(StageTrainer):
    """The loop of a stage of preferences; arguments as `StageTrainer`, with a `PreferenceModel`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Sums since the last line: rewards of chosen and of rejected answers, right pairs, pairs.
        self._sums = torch.zeros(4, dtype=torch.float64, device=self.args.device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of one batch, counting its rewards."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        chosen, rejected = outputs["rewards"].to(self._sums).unbind(1)
        is_right = (chosen > rejected).to(self._sums)
        counts = (chosen, rejected, is_right, torch.ones_like(chosen))
        self._sums += torch.stack([one.sum() for one in counts])
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the rewards of all processes to a line of metrics."""
        if "loss" in logs:
            sums: Any = self.accelerator.reduce(self._sums, "sum")
            chosen, rejected, accuracy = (sums[:3] / sums[3]).tolist()
            logs["reward_chosen"], logs["reward_rejected"] = chosen, rejected
            logs["reward_margin"], logs["reward_accuracy"] = chosen - rejected, accuracy
            self._sums = torch.zeros_like(self._sums)
        super().log(logs, start_time)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Return the pairs of one step, of all processes."""
        num_pairs = torch.tensor(
            sum(len(batch["shares"]) for batch in batch_samples), device=device
        )
        if self.args.world_size > 1:
            gathered: Any = self.accelerator.gather(num_pairs)
            num_pairs = gathered.sum()
        return num_pairs
