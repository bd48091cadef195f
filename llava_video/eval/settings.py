"""How an evaluation is run, whatever its task and model."""

from dataclasses import dataclass

from llava_video.config import check, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings:
    """How an evaluation is run."""

    limit: int | None = setting(
        None, "How many examples, the first ones. None: all of them.", at_least=1
    )
    noise: bool = setting(
        False, "Ask everything again with noise in place of every frame: what the words give away."
    )
    noise_seed: int = setting(0, "Seed of that noise.", at_least=0)
    retry_failed: bool = setting(
        False, "Ask again what failed before; what was answered is never asked again."
    )
    level: float = setting(
        0.95, "How often such an interval holds the truth.", above=0.0, at_most=0.999
    )
    num_bins: int = setting(10, "Bins of the reliability table.", at_least=1)

    def __post_init__(self) -> None:
        check(self)
