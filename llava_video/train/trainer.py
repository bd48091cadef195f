"""transformers' `Trainer` for packed batches: our order, our groups, our files, our metrics.

What of the `Trainer` stays: the loop, accumulation, bf16, devices and processes, the schedule, the
optimiser's state on the disk and back. A checkpoint to resume from holds the parameters that learn;
the others come from the model it began with.
"""

import itertools
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from accelerate.utils import gather_object
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from llava_video.errors import CheckpointError, ConfigError
from llava_video.files import replacing
from llava_video.train.batches import Examples, GroupedOrder, Made, collate
from llava_video.train.curves import FOLDER, Curves
from llava_video.train.forward import TrainingModel
from llava_video.train.parts import parameter_groups
from llava_video.train.settings import StageSettings
from llava_video.train.small_world import Counting, WorldExamples

WEIGHTS = "model.safetensors"
METRICS = "metrics.jsonl"
_AHEAD = 4  # batches that each worker makes before they are asked for


class StageTrainer(Trainer):
    """The loop of one stage.

    Args:
        model: what is trained.
        examples: what on.
        stage: its settings.
        arguments: of `training_arguments`.
        on_line: called with every line of metrics.
    """

    def __init__(
        self,
        model: TrainingModel,
        examples: Examples | WorldExamples,
        stage: StageSettings,
        arguments: TrainingArguments,
        on_line: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._stage, self._examples = stage, examples
        self.counted: dict[str, float] = {"tokens": 0, "wait_s": 0.0}
        self.broken: dict[str, int] = {}
        self._loader: Any = None
        self.order: Counting | GroupedOrder | None = None
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=examples,
            data_collator=collate,  # type: ignore[arg-type]  # of our own examples
            callbacks=[Epochs(self), Metrics(self, Path(stage.output), stage.metrics, on_line)],
        )
        self.remove_callback(PrinterCallback)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW over the parts' groups."""
        if self.optimizer is None:
            groups = parameter_groups(self._net, self._stage, prefix="model.")
            # One pass over parameters, gradients and moments instead of a dozen.
            betas = (0.9, self._stage.adam_beta2)
            self.optimizer = torch.optim.AdamW(groups, betas=betas, eps=1e-8, fused=True)
        return self.optimizer

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of one batch, counting what is in it."""
        for kind in inputs.pop("broken"):
            self.broken[kind] = self.broken.get(kind, 0) + 1
        self.counted["tokens"] += len(inputs["labels"])
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Return the batches of one step, noting how long they were waited for."""
        before_s = time.perf_counter()
        found = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.counted["wait_s"] += time.perf_counter() - before_s
        return found

    def get_train_dataloader(self) -> Any:
        """Return the loader, whose workers live as long as it and draw from numbers of its own.

        Otherwise every start of workers takes a number of those that dropout is drawn from, and a
        run that goes on starts them at another step than the one that was broken.
        """
        loader = super().get_train_dataloader()
        own: Any = getattr(loader, "base_dataloader", loader)  # accelerate's hands on to torch's
        own.generator = torch.Generator().manual_seed(self._stage.seed)
        self._loader = own
        return loader

    def train(self, *arguments: Any, **named: Any) -> Any:
        """Train, and let the workers go: left to the collector, they are waited for in vain."""
        try:
            return super().train(*arguments, **named)
        finally:
            if self._loader is not None:
                self._loader._iterator = None

    def _get_train_sampler(self, train_dataset: Dataset[Made] | None = None) -> Sampler[int]:
        del train_dataset
        step = self._stage.batch_size * self.args.world_size
        self.order = self._examples.order(step, self._stage.seed)
        return self.order

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the parameters that learn; under DeepSpeed, all that it gathered."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        state = self._net.state_dict() if state_dict is None else state_dict
        names = self._learning()
        kept = {name: tensor.contiguous() for name, tensor in state.items() if name in names}
        safetensors.torch.save_file(kept, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Read them back; the others are as they were when the stage began."""
        state = safetensors.torch.load_file(Path(resume_from_checkpoint) / WEIGHTS)
        found = (model or self._net).load_state_dict(state, strict=False)
        if found.unexpected_keys or self._learning() - state.keys():
            raise CheckpointError(
                f"{resume_from_checkpoint} holds other parameters than those that learn.",
                "begin anew in another output folder.",
            )

    def gather(self) -> None:
        """Give the first process the whole parameters where ZeRO-3 shares them out.

        Every process holds placeholders of no numbers for them there, which would be saved. All
        have to ask at once. The numbers are in the dtype that DeepSpeed calculates in.

        Raises:
            ConfigError: the DeepSpeed file says that they are not gathered.
        """
        engine: Any = self.deepspeed
        if engine is None or engine.config.get("zero_optimization", {}).get("stage") != 3:
            return
        try:
            state = self.accelerator.get_state_dict(engine)
        except ValueError as cause:
            raise ConfigError(
                f"{self._stage.deepspeed} shares the parameters out (stage 3) and has no "
                "stage3_gather_16bit_weights_on_model_save: the result cannot be written.",
                "set it to true, and run the stage again: it goes on from its last checkpoint.",
            ) from cause
        if not self.is_world_process_zero():
            return
        for name, parameter in self._net.named_parameters():
            # As DeepSpeed itself does: what it notes on its own parameters stays.
            parameter.data = state[name]

    def counts(self) -> dict[str, Any]:
        """Return what all processes counted since the last line, which each has to ask at once.

        Returns:
            "tokens", and "broken" since the run's start, together; "wait_s", and what the last
            batches' losses are the sum of, where they are one ("loss_" and a name), as means.
        """
        parts: dict[str, torch.Tensor] = getattr(self._net, "parts", {})
        losses = {f"loss_{name}": float(loss) for name, loss in parts.items()}
        every = gather_object([(losses, self.counted, self.broken)])
        losses_of, counted, broken = zip(*every, strict=True)
        self.counted = {"tokens": 0, "wait_s": 0.0}
        return {
            "losses": {
                name: round(statistics.mean(one[name] for one in losses_of if name in one), 5)
                for name in dict.fromkeys(itertools.chain(*losses_of))
            },
            "tokens": sum(one["tokens"] for one in counted),
            "wait_s": statistics.mean(one["wait_s"] for one in counted),
            "broken": dict(sum(map(Counter, broken), Counter())),
        }

    @property
    def _net(self) -> TrainingModel:
        return cast("TrainingModel", self.model)

    def _learning(self) -> set[str]:
        return {name for name, p in self._net.named_parameters() if p.requires_grad}


class Epochs(TrainerCallback):
    """Tells the order which epoch begins, before its first batch is drawn.

    `Trainer` and accelerate tell it too, but where several processes share it, they do not reach it
    through a loader that skips what was learned: a run that goes on would repeat epoch 0's order.

    Args:
        trainer: has the order.
    """

    def __init__(self, trainer: StageTrainer) -> None:
        self._trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell it; of a run that goes on, `state.epoch` is a part of an epoch more."""
        if self._trainer.order is not None:
            self._trainer.order.set_epoch(int(state.epoch or 0))


class Metrics(TrainerCallback):
    """One line of metrics per `log_every` steps, and one at every checkpoint and at the end.

    So a run that goes on from a checkpoint knows what its steps so far passed over, and what broke
    in the last few steps is told too.

    Args:
        trainer: counts.
        folder: the run's; lines of steps that are done again are taken out.
        kinds: "jsonl" for lines of JSON, "tensorboard" for its event files.
        on_line: called with every line.
    """

    def __init__(
        self,
        trainer: StageTrainer,
        folder: Path,
        kinds: Sequence[str] = ("jsonl",),
        on_line: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._trainer, self._on_line = trainer, on_line
        self._path = folder / METRICS if "jsonl" in kinds else None
        self._curves = Curves(folder / FOLDER) if "tensorboard" in kinds else None
        self._since_s = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop the lines of steps that are done again, and count on from the last that is kept.

        How often it logs and saves is this run's, not that of the one that wrote the checkpoint.
        """
        self._since_s = time.perf_counter()
        state.logging_steps, state.save_steps = args.logging_steps, args.save_steps
        if not state.is_world_process_zero:
            return
        if self._curves:
            self._curves.begin(state.global_step)
        if not self._path or not self._path.is_file():
            return
        lines = self._path.read_text(encoding="utf-8").split("\n")
        kept = [line for line in lines if _step_of(line) <= state.global_step]
        with replacing(self._path) as unfinished:
            unfinished.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        if kept:  # of all processes, which are added up again: the others begin at nought
            self._trainer.broken = dict(json.loads(kept[-1]).get("broken", {}))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a line where a checkpoint is about to be written, or no step follows."""
        if control.should_save or state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write one line."""
        if "loss" not in (logs or {}):
            return
        counts = self._trainer.counts()
        if not state.is_world_process_zero:
            return
        took_s = time.perf_counter() - self._since_s
        self._since_s = time.perf_counter()
        line = {
            "step": state.global_step,
            "steps": state.max_steps,
            "epoch": round(state.epoch or 0.0, 4),
            "loss": logs["loss"],
            **{name: value for name, value in logs.items() if name.startswith("reward_")},
            "grad_norm": logs.get("grad_norm"),
            **counts["losses"],
            "learning_rate": logs.get("learning_rate"),
            "tokens_per_s": round(counts["tokens"] / took_s, 1),
            "wait_share": round(counts["wait_s"] / took_s, 4),
            "broken": counts["broken"],
        }
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self._curves:
            self._curves.write(line)
        if self._on_line:
            self._on_line(line)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let the event file go."""
        if self._curves:
            self._curves.close()


def training_arguments(
    stage: StageSettings, *, bf16: bool, deepspeed: dict[str, Any] | None = None
) -> TrainingArguments:
    """Return the `Trainer`'s arguments of a stage.

    Args:
        stage: the settings.
        bf16: what its "auto" came to.
        deepspeed: what its DeepSpeed file says, of `with_sizes`; None where it names none.
    """
    schedule = "constant_with_warmup" if stage.schedule == "constant" else stage.schedule
    return TrainingArguments(
        output_dir=stage.output,
        per_device_train_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.accumulate,
        learning_rate=stage.learning_rate,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        num_train_epochs=stage.epochs,
        max_steps=stage.max_steps or -1,
        lr_scheduler_type=schedule,
        warmup_steps=stage.warmup_ratio,
        logging_steps=stage.log_every,
        save_steps=stage.save_every,
        save_total_limit=stage.keep,
        seed=stage.seed,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=stage.data.num_workers,
        dataloader_persistent_workers=stage.data.num_workers > 0,
        # Batches are of unlike work: a long video must not let the others wait.
        dataloader_prefetch_factor=_AHEAD if stage.data.num_workers else None,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_nan_inf_filter=False,  # it would wait for the GPU at every step
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
        deepspeed=deepspeed,
        ddp_find_unused_parameters=True,
        ddp_broadcast_buffers=False,  # none changes; a quantised decoder's are gigabytes
    )


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # half a line of a killed run
