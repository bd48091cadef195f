"""What a caller may ask of one answer, and of the engine that makes it.

`GenerationSettings` belongs to one request, `EngineSettings` to the scheduler all of them share.
Knows no model and imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llava_video.config import check, setting
from llava_video.errors import ConfigError

# Patches of one vision call: on a CPU the activations of two tiles of 27 x 27 stay in its caches, a
# GPU is busy with sixteen.
_CPU_PATCHES = 2 * 27**2
_GPU_PATCHES = 16 * 27**2


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """How one answer is generated."""

    max_new_tokens: int = setting(512, "Longest answer.", unit="tokens", at_least=1)
    temperature: float = setting(
        0.0, "0 takes the most probable token; above it tokens are sampled.", at_least=0.0
    )
    top_p: float = setting(
        1.0, "Sample among the fewest tokens that hold this share.", above=0.0, at_most=1.0
    )
    top_k: int = setting(0, "Sample among this many tokens; 0 for all.", at_least=0)
    seed: int = setting(0, "Seed of this request's own sampling.", at_least=0, at_most=2**63 - 1)
    repetition_penalty: float | None = setting(
        None, "Divides what was generated already; None is the checkpoint's, 1 is none.", above=0.0
    )
    stop: tuple[str, ...] = setting((), "Strings that end the answer and are left out of it.")
    loop_guard: bool = setting(
        True, "Stop an answer that repeats the same words back to back; not with a JSON schema."
    )
    response_format: Mapping[str, Any] | tuple[str, ...] | None = setting(
        None, "A JSON schema, or the list of choices the answer is taken from."
    )

    def __post_init__(self) -> None:
        check(self)
        if not all(self.stop):
            raise ConfigError(f"stop = {self.stop!r}.", "a tuple of strings, none of them empty.")
        _check_format(self.response_format)
        if self.choices and self.stop:
            raise ConfigError(
                f"stop = {self.stop!r} beside choices.",
                "choices are answers whole: leave stop out.",
            )

    @property
    def choices(self) -> tuple[str, ...]:
        """The choices the answer is taken from; () when it is free or follows a schema."""
        return self.response_format if isinstance(self.response_format, tuple) else ()

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The JSON schema the answer follows, or None."""
        return self.response_format if isinstance(self.response_format, Mapping) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How the one engine of a model works."""

    prefill_chunk_tokens: int = setting(
        2048,
        "Prompt tokens of one step, over all requests; bounds activations, keeps GEMMs busy.",
        unit="tokens",
        at_least=1,
    )
    tile_chunk: int | None = setting(
        None,
        "Tiles of one vision call; None is 2 of 384 px on a CPU, for its caches, 16 on a GPU.",
        unit="tiles",
        at_least=1,
    )
    max_running: int = setting(
        16, "Requests under way at once; more wait their turn.", unit="requests", at_least=1
    )
    slab_tokens: int = setting(
        8192, "Tokens of one piece of KV memory, taken when needed.", unit="tokens", at_least=1
    )
    max_cache_tokens: int | None = setting(
        None, "Tokens of KV memory in all; None for no limit of ours.", unit="tokens", at_least=1
    )
    max_cache_bytes: int | None = setting(
        None,
        "Bytes of KV memory in all, rows that wait to be fused among them; None for no limit of "
        "ours.",
        unit="bytes",
        at_least=1,
    )
    kept_prefixes: int = setting(
        1,
        "Prompts whose visuals stay in the cache after their answer, for the next question about "
        "them; they give way when memory is needed.",
        unit="prompts",
        at_least=0,
    )
    kept_rows_bytes: int = setting(
        0,
        "Rows of frames that stay where they were made, by what the frames show: what a still "
        "camera shows again is not encoded again. 0 keeps none, and spends no time on telling "
        "frames apart.",
        unit="bytes",
        at_least=0,
    )
    free_running: Literal["auto", "on", "off"] = setting(
        "auto",
        "Whether tokens that no schema restricts are chosen on the device and read one step late; "
        "auto is on a GPU, where waiting for each costs more than the step.",
    )
    cuda_graphs: Literal["auto", "off"] = setting(
        "auto", "Whether steps that run freely on a GPU are captured and replayed."
    )
    rope: Literal["exact", "compat"] = setting(
        "exact", "Angles of positions: exact, or the reference's in float32, for parity runs."
    )

    def __post_init__(self) -> None:
        check(self)

    def tiles_per_call(self, device_type: str, patches_per_side: int) -> int:
        """Return the tiles of one vision call: `tile_chunk`, or what suits the device.

        Args:
            device_type: "cpu", "cuda", ….
            patches_per_side: of a tile.
        """
        if self.tile_chunk is not None:
            return self.tile_chunk
        patches = _CPU_PATCHES if device_type == "cpu" else _GPU_PATCHES
        return max(1, patches // patches_per_side**2)


def _check_format(asked: object) -> None:
    if asked is None or isinstance(asked, Mapping):
        return
    hint = "a JSON schema as a mapping, or a list of different choices like ['yes', 'no']."
    if not isinstance(asked, tuple):
        raise ConfigError(f"response_format is {type(asked).__name__}.", hint)
    if not asked or len(set(map(str, asked))) != len(asked):
        raise ConfigError(f"response_format = {list(asked)!r} is empty or has doubles.", hint)
    for choice in asked:
        if not isinstance(choice, str) or not choice or choice != choice.strip():
            # A blank or padded choice could not equal the stripped text of an answer.
            raise ConfigError(f"choice {choice!r} is no text, empty, or padded with blanks.", hint)
