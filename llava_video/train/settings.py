"""What a stage of training is: the model, what of it learns, how fast, and on which data.

One YAML file is one stage (`config.read_yaml`); a stage that follows another names its result as
its model. Knows no model and opens nothing.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from llava_video.config import check, setting
from llava_video.errors import ConfigError
from llava_video.planning.geometry import Aspect
from llava_video.values import Newline

Part = Literal["vision_tower", "projector", "learned_tokens", "language_model"]
PARTS: Final[tuple[Part, ...]] = (
    "vision_tower",
    "projector",
    "learned_tokens",
    "language_model",
)

# Parts small enough to be learned from nothing.
_DRAWN: Final[tuple[Part, ...]] = ("projector", "learned_tokens")

_STRATEGY = re.compile(r"all|(?:first|end|random):[0-9]+(?:\.[0-9]+)?%|(?:first|end|random):[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """One file of conversations in a mixture."""

    path: str = setting(
        "", "a .json or .jsonl file of LLaVA's format, or several: 'data/{a,b}.json'"
    )
    media: str = setting("", "folder that pictures' and videos' paths begin at; '' for the file's")
    sampling_strategy: str = setting(
        "all", "which of its examples: all, first:N, end:N or random:N, N a number or '20%'"
    )
    weight: float = setting(
        1.0,
        "how often each is taken per epoch; 0.5 takes a random half, 2 takes all twice",
        above=0,
    )

    def __post_init__(self) -> None:
        """Check every field."""
        check(self)
        if not self.path:
            raise ConfigError("a source names no file.", "path: data.json")
        if not _STRATEGY.fullmatch(self.sampling_strategy):
            raise ConfigError(
                f"sampling_strategy = {self.sampling_strategy!r}.",
                "allowed: all, first:N, end:N, random:N; N is a whole number, or like 20%.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """What is trained on, and how much of a video is looked at."""

    sources: tuple[SourceSettings, ...] = setting((), "files of conversations, mixed")
    max_tokens: int = setting(
        32_768, "longest example, visual tokens included", unit="tokens", at_least=2
    )
    too_long: Literal["drop", "error"] = setting(
        "drop", "what becomes of longer ones: left out and counted, or the end; never cut"
    )
    broken: Literal["drop", "error"] = setting(
        "drop",
        "what becomes of examples with a missing file, marks without media, an empty answer, …",
    )
    max_frames: int | None = setting(
        None, "most frames of a video; None: the model's own", unit="frames", at_least=1
    )
    fps: float | None = setting(
        None, "frames per second of video; None: as the model", unit="frames/s", above=0
    )
    pool_stride: int | None = setting(
        None, "side reduction of a frame's map; None: the model's", unit="patches", at_least=1
    )
    newline: Newline | None = setting(None, "where newline tokens stand; None: as the model")
    time_instruction: bool | None = setting(
        None, "whether a video's length and times stand in the prompt; None: as the model"
    )
    image_aspect: Aspect | None = setting(
        None, "what becomes of pictures: 'anyres', 'pad' or 'square'; None: as the model"
    )
    share_visuals: bool = setting(
        False,
        "each question of a conversation that begins with its visuals is learned by itself, after "
        "the same visuals; off: in turn, after the answers before it",
    )
    group_by: Literal["length", "modality", "none"] = setting(
        "modality",
        "'length' puts examples of like length into one batch, 'modality' also text, pictures and "
        "videos apart, as the original does",
    )
    num_workers: int = setting(
        4, "processes that decode and tile ahead; 0 for none", at_least=0, at_most=256
    )

    def __post_init__(self) -> None:
        """Check every field."""
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRates:
    """Learning rates of single parts, instead of the stage's."""

    vision_tower: float | None = setting(None, "of the tower; published: 2e-6", above=0)
    projector: float | None = setting(None, "of the projector", above=0)
    learned_tokens: float | None = setting(None, "of newline and separator", above=0)
    language_model: float | None = setting(None, "of the language model", above=0)

    def __post_init__(self) -> None:
        """Check every field."""
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Low-rank changes of the decoder's linear layers, instead of its own weights."""

    r: int = setting(128, "rank; published: 128 for LLaVA-1.5", at_least=1)
    alpha: float = setting(256.0, "the change counts alpha / r times", above=0)
    dropout: float = setting(0.05, "share of inputs left out", at_least=0, at_most=0.99)
    modules: tuple[str, ...] = setting(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        "which linear layers of a decoder layer",
    )

    def __post_init__(self) -> None:
        """Check every field."""
        check(self)
        known = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        unknown = [name for name in self.modules if name not in known]
        if unknown or not self.modules:
            raise ConfigError(f"lora.modules = {self.modules}.", f"allowed: {', '.join(known)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoSettings:
    """Learning which of two answers is better, instead of what to answer (DPO)."""

    beta: float = setting(
        0.1, "a reward is so many times the rise of an answer's log-probability", above=0
    )
    label_smoothing: float = setting(
        0.0, "share of pairs that are thought to be the wrong way round", at_least=0, at_most=0.49
    )
    chosen_weight: float = setting(
        0.0, "how much learning to write the chosen answer counts besides; published: 0", at_least=0
    )

    def __post_init__(self) -> None:
        """Check every field."""
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSettings:
    """One stage of training."""

    name: str = setting("stage", "what it is called in logs")
    model: str = setting("", "folder or hub id it begins with")
    base: str | None = setting(None, "what an adapter, a projector or a delta is over")
    vision_tower: str | None = setting(None, "tower of a checkpoint that holds none")
    template: str | None = setting(
        None, "of the conversations; None: the model's; 'plain' captions"
    )
    output: str = setting("", "new folder for checkpoints, metrics and the result")
    learn: tuple[Part, ...] = setting(
        ("projector", "learned_tokens", "language_model"), "which parts learn; others are frozen"
    )
    fresh: tuple[Part, ...] = setting(
        (), "which parts begin with drawn numbers instead of the model's own"
    )
    data: DataSettings = setting(DataSettings(), "what is trained on")
    learning_rate: float = setting(1e-5, "largest, after the warm-up", above=0)
    part_rates: PartRates = setting(PartRates(), "of parts with a rate of their own")
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "cosine", "how the rate falls after the warm-up"
    )
    warmup_ratio: float = setting(
        0.03, "share of the steps in which the rate rises from 0", at_least=0, at_most=0.99
    )
    weight_decay: float = setting(0.0, "of all but biases and norms", at_least=0)
    max_grad_norm: float = setting(1.0, "longest gradient; longer ones are scaled", above=0)
    epochs: float = setting(1.0, "how often the mixture is seen", above=0)
    max_steps: int | None = setting(
        None, "the end after so many steps, whatever `epochs`", at_least=1
    )
    batch_size: int = setting(1, "examples packed into one sequence, per device", at_least=1)
    accumulate: int = setting(1, "batches per step of the optimiser", at_least=1)
    bf16: Literal["auto"] | bool = setting(
        "auto", "products in bfloat16; 'auto' on a GPU that has it"
    )
    checkpointing: bool = setting(
        True, "layers are computed again for their gradients: less memory, a third more time"
    )
    seed: int = setting(0, "of the order, the mixture and dropout", at_least=0)
    save_every: int = setting(500, "steps between two checkpoints to resume from", at_least=1)
    keep: int = setting(1, "checkpoints kept", at_least=1)
    log_every: int = setting(10, "steps between two lines of metrics", at_least=1)
    layouts: tuple[Literal["original", "hf"], ...] = setting(
        ("original",), "layouts of the result: the authors', always, and 'hf' of transformers"
    )
    lora: LoraSettings | None = setting(None, "low-rank changes instead of the decoder's weights")
    deepspeed: str | None = setting(None, "a DeepSpeed configuration, as the real models need")
    dpo: DpoSettings | None = setting(
        None, "the data are pairs of answers, and the model learns which one is better"
    )

    def __post_init__(self) -> None:
        """Check every field, and that they fit together."""
        check(self)
        self._check_dpo()
        for name in ("model", "output"):
            if not getattr(self, name):
                raise ConfigError(f"the stage says no {name}.", f"{name}: a folder")
        if not self.data.sources:
            raise ConfigError("the data has no sources.", "data: {sources: [{path: data.json}]}")
        is_idle = not self.learn and self.lora is None
        if is_idle or len(set(self.learn)) != len(self.learn):
            raise ConfigError(f"learn = {list(self.learn)}.", f"each once of: {', '.join(PARTS)}.")
        idle = [p for p in PARTS if getattr(self.part_rates, p) is not None and p not in self.learn]
        if idle:
            raise ConfigError(
                f"part_rates names {', '.join(idle)}, which does not learn.",
                "add it to learn, or leave its rate out.",
            )
        fixed = [part for part in self.fresh if part not in self.learn or part not in _DRAWN]
        if fixed:
            raise ConfigError(
                f"fresh names {', '.join(fixed)}.", f"parts that learn, of: {', '.join(_DRAWN)}."
            )
        if self.lora is not None and "language_model" in self.learn:
            raise ConfigError(
                "lora and language_model in learn: one of them changes the decoder.",
                "leave language_model out of learn.",
            )

    def rate_of(self, part: Part) -> float:
        """Return a part's learning rate."""
        own: float | None = getattr(self.part_rates, part)
        return self.learning_rate if own is None else own

    def _check_dpo(self) -> None:
        given = {
            "fresh": bool(self.fresh),
            "template: plain": self.template == "plain",
            "data.share_visuals": self.data.share_visuals,
        }
        unfit = [name for name, is_given in given.items() if is_given]
        if self.dpo is not None and unfit:
            raise ConfigError(
                f"dpo and {', '.join(unfit)}.",
                "leave it out: pairs share their beginning anyway, are answers in a conversation, "
                "and are compared with the model that the stage begins with.",
            )
