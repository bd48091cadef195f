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
from llava_video.train.world_settings import DenseSettings, WorldSource
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
        check(self, is_finite=True)
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
    world: WorldSource | None = setting(None, "clips of the small world, instead of files")
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
    folder_fps: float = setting(
        2.0,
        "frames per second of a folder of pictures whose record has no 'fps' of its own",
        unit="frames/s",
        above=0,
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
        "the same visuals; off: in turn, after the answers before it; of files alone: of the small "
        "world's clips `world.chat_share` decides",
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
class NewModel:
    """A LLaVA-Video checkpoint of any size, before it has learned anything."""

    tile_px: int = setting(96, "side of a tile", unit="px", at_least=14)
    patch_px: int = setting(12, "side of a patch", unit="px", at_least=1)
    vision_hidden_size: int = setting(192, "channels of the tower", at_least=1)
    vision_intermediate_size: int = setting(768, "channels inside its MLP", at_least=1)
    vision_num_layers: int = setting(4, "layers of the tower", at_least=1)
    vision_num_heads: int = setting(6, "its attention heads", at_least=1)
    hidden_size: int = setting(256, "channels of the language model", at_least=1)
    intermediate_size: int = setting(640, "channels inside its MLP", at_least=1)
    num_layers: int = setting(7, "its layers", at_least=1)
    num_heads: int = setting(4, "its query heads", at_least=1)
    num_kv_heads: int = setting(2, "its key and value heads", at_least=1)
    vocab_size: int = setting(1024, "tokens, the 256 bytes included", at_least=259)
    context_tokens: int = setting(32_768, "longest prompt with its answer", at_least=1)
    clips: int = setting(500, "clips of the small world its tokenizer is made for", at_least=1)
    seed: int = setting(0, "of the weights", at_least=0)

    def __post_init__(self) -> None:
        """Check every field, and that widths are cut into whole heads."""
        check(self)
        for part in ("vision_num_heads", "num_heads", "num_kv_heads"):
            of = "num_heads" if part == "num_kv_heads" else part.replace("num_heads", "hidden_size")
            if (whole := getattr(self, of)) % (num := getattr(self, part)):
                raise ConfigError(f"new.{part} = {num}.", f"a divisor of {of}, which is {whole}.")


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
    new: NewModel | None = setting(None, "a model of these sizes made for this stage, instead")
    base: str | None = setting(None, "what an adapter, a projector or a delta is over")
    vision_tower: str | None = setting(None, "tower of a checkpoint that holds none")
    template: str | None = setting(
        None, "of the conversations; None: the model's; 'plain': captions, not kept in the result"
    )
    output: str = setting("", "new folder for checkpoints, metrics and the result")
    learn: tuple[Part, ...] = setting(
        ("projector", "learned_tokens", "language_model"), "which parts learn; others are frozen"
    )
    fresh: tuple[Part, ...] = setting(
        (), "which parts begin with drawn numbers instead of the model's own"
    )
    data: DataSettings = setting(DataSettings(), "what is trained on")
    dense: DenseSettings | None = setting(
        None, "auxiliary losses on visual rows, for the small world alone"
    )
    learning_rate: float = setting(1e-5, "largest, after the warm-up", above=0)
    part_rates: PartRates = setting(PartRates(), "of parts with a rate of their own")
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "cosine", "how the rate falls after the warm-up"
    )
    warmup_ratio: float = setting(
        0.03, "share of the steps in which the rate rises from 0", at_least=0, at_most=0.99
    )
    weight_decay: float = setting(0.0, "of all but biases and norms", at_least=0)
    adam_beta2: float = setting(
        0.999,
        "how slowly the optimiser's mean of squared gradients follows; lower for short runs",
        above=0,
        at_most=0.9999,
    )
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
    keep_features_mb: int = setting(
        0,
        "room for features of a tower that does not learn, in the memory of each process: a tile "
        "that is shown again, as in the next epoch, is not encoded again; 0 keeps none",
        unit="MB",
        at_least=0,
    )
    seed: int = setting(0, "of the order, the mixture and dropout", at_least=0)
    save_every: int = setting(500, "steps between two checkpoints to resume from", at_least=1)
    keep: int = setting(1, "checkpoints kept", at_least=1)
    log_every: int = setting(10, "steps between two lines of metrics", at_least=1)
    dtype: Literal["float32", "bfloat16", "float16"] | None = setting(
        None, "of the result's weights; None: the model's own"
    )
    metrics: tuple[Literal["jsonl", "tensorboard"], ...] = setting(
        ("jsonl",), "where metrics are written: metrics.jsonl, and curves for TensorBoard"
    )
    layouts: tuple[Literal["original", "hf"], ...] = setting(
        ("original",), "layouts of the result: the authors', always, and 'hf' of transformers"
    )
    lora: LoraSettings | None = setting(None, "low-rank changes instead of the decoder's weights")
    quantize: Literal["int8", "int4"] | None = setting(
        None, "integers that the frozen decoder's linear weights are kept as beneath `lora` (QLoRA)"
    )
    deepspeed: str | None = setting(
        None,
        "a DeepSpeed file (JSON), as the real models need; without optimizer and scheduler, which "
        "are the stage's",
    )
    dpo: DpoSettings | None = setting(
        None, "the data are pairs of answers, and the model learns which one is better"
    )

    def __post_init__(self) -> None:
        """Check every field, and that they fit together."""
        check(self)
        self._check_dpo()
        self._check_data()
        self._check_learning()
        if not self.output:
            raise ConfigError("the stage says no output.", "output: a folder")
        if bool(self.model) == (self.new is not None):
            raise ConfigError("the stage says no model, or two.", "model: a folder; or new: {}")

    def rate_of(self, part: str) -> float:
        """Return a part's learning rate."""
        own: float | None = getattr(self.part_rates, part)
        return self.learning_rate if own is None else own

    def _check_data(self) -> None:
        if bool(self.data.sources) == (self.data.world is not None):
            raise ConfigError(
                "the data has no sources, or both files and the small world.",
                "data: {sources: [{path: data.json}]}, or data: {world: {clips: 100000}}.",
            )
        if self.data.world is not None and self.template == "plain":
            raise ConfigError(
                "template: plain and data.world: its captions are of a single picture or video.",
                "leave template out: the small world's clips are asked questions.",
            )
        if self.dense is not None and self.data.world is None:
            raise ConfigError(
                "dense losses are of the small world, whose truth is known to the pixel.",
                "leave dense out, or train on data: {world: …}.",
            )
        world, dense = self.data.world, self.dense
        if world is not None and dense is not None and dense.captions and not world.captions:
            raise ConfigError(
                "dense.captions: true, and data.world.captions = 0.",
                "raise data.world.captions, or leave dense.captions out.",
            )
        if self.dense is not None and self.data.newline not in (None, Newline.ROW):
            raise ConfigError("dense losses, and data.newline is not row.", "leave newline out.")

    def _check_learning(self) -> None:
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
        if self.keep_features_mb and "vision_tower" in self.learn:
            raise ConfigError(
                f"keep_features_mb = {self.keep_features_mb}, and vision_tower learns.",
                "leave it out: features of a tower that learns change at every step.",
            )
        if self.lora is not None and "language_model" in self.learn:
            raise ConfigError(
                "lora and language_model in learn: one of them changes the decoder.",
                "leave language_model out of learn.",
            )
        if self.quantize is not None and self.lora is None:
            raise ConfigError(
                f"quantize = {self.quantize!r} without lora: integers do not learn.",
                "add lora: {r: 64, alpha: 16}, or leave quantize out.",
            )

    def _check_dpo(self) -> None:
        given = {
            "fresh": bool(self.fresh),
            "template: plain": self.template == "plain",
            "data.share_visuals": self.data.share_visuals,
            "data.world": self.data.world is not None,
        }
        unfit = [name for name, is_given in given.items() if is_given]
        if self.dpo is not None and unfit:
            raise ConfigError(
                f"dpo and {', '.join(unfit)}.",
                "leave it out: pairs are read from files (llava-video world --preferences), share "
                "their beginning anyway, are answers in a conversation, and are compared with the "
                "model that the stage begins with.",
            )
