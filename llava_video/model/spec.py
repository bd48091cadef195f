"""Everything known of a checkpoint without its weights: configuration, geometry, tokenizer.

Reads JSON files of a folder (fetched by name when needed); imports neither torch nor transformers,
so a plan costs no start-up time.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from llava_video.model.card import ModelCard, read_card
from llava_video.model.model_config import ModelConfig, geometry_of, read_model_config
from llava_video.model.prompt import stop_strings, template_of
from llava_video.model.sources import Files, Sources, find_sources
from llava_video.model.tokenizer import Tokenizer
from llava_video.planning.geometry import Geometry
from llava_video.planning.memory import Setup
from llava_video.remote.facts import ServerFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A checkpoint, weights aside.

    Attributes:
        name: as the user gave it; with an adapter "model + adapter".
        sources: the folders it consists of.
        revision: the hub revision asked for; None for the default or a folder.
        config: what its config.json says.
        geometry: what the planner must know.
        tokenizer: its tokenizer.
        setup: how it is set up to run: the precision of its weights, chunks, the memory it may
            take. Of facts that were only read: no limit, plain weights.
        card: what its makers say it knows; None where nothing is said.
        server: what a server says of itself that answers in place of weights; None for weights.
    """

    name: str
    sources: Sources
    revision: str | None
    config: ModelConfig
    geometry: Geometry
    tokenizer: Tokenizer
    setup: Setup = field(default_factory=Setup)
    card: ModelCard | None = None
    server: ServerFacts | None = None

    @property
    def folder(self) -> Path:
        """Where its own files are."""
        return self.sources.folder

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end an answer: the checkpoint's, and the template's where it ends by a token."""
        ends = map(self.tokenizer.special_id, stop_strings(self.config.template))
        of_template = [end for end in ends if end is not None]
        return tuple(dict.fromkeys((*self.config.generation.eos_ids, *of_template)))

    @property
    def end_texts(self) -> tuple[str, ...]:
        """Texts that end an answer: of a template whose end is no token, as the ### of v0."""
        ends = stop_strings(self.config.template)
        return tuple(end for end in ends if self.tokenizer.special_id(end) is None)

    @property
    def missing_tokens(self) -> tuple[str, ...]:
        """Tokens that the template is written with and this tokenizer does not have."""
        tokens = template_of(self.config.template).tokens
        return tuple(token for token in tokens if self.tokenizer.token_id(token) is None)

    def with_template(self, name: str | None) -> "ModelSpec":
        """Return the spec with another conversation template; None leaves the checkpoint's.

        Raises:
            ConfigError: there is none of this name.
        """
        if name is None:
            return self
        template_of(name)
        return replace(self, config=replace(self.config, template=name))


def read_spec(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    base: str | Path | None = None,
    vision_tower: str | Path | None = None,
    adapter: str | Path | None = None,
    files: Files = "config",
    dtype: str = "bfloat16",
) -> ModelSpec:
    """Read a checkpoint's configuration and tokenizer.

    Args:
        name_or_path: a folder, a hub id or "demo".
        revision: hub revision.
        base: a folder or hub id that an adapter, a projector or a delta is over; None for the one
            it names itself.
        vision_tower: a folder or hub id of the vision tower, where the checkpoint only names one.
        adapter: a folder or hub id of a LoRA adapter over the checkpoint.
        files: "config" fetches only the small files of a hub id, "all" its weights too.
        dtype: the dtype the memory estimate counts weights and cache in.

    Raises:
        CheckpointError: not found, incomplete, or of a kind this library does not read.
    """
    name = str(name_or_path)
    sources = find_sources(
        name_or_path,
        revision=revision,
        base=base,
        vision_tower=vision_tower,
        adapter=adapter,
        files=files,
    )
    config = read_model_config(
        sources.config_folder, tower=vision_tower, generation_folder=sources.generation_folder
    )
    geometry = geometry_of(config, name, dtype)
    if adapter is not None:
        name = f"{name} + {adapter}"
        geometry = replace(geometry, model=name)
    return ModelSpec(
        name=name,
        sources=sources,
        revision=revision,
        config=config,
        geometry=geometry,
        tokenizer=Tokenizer(sources.tokenizer_folder),
        card=read_card(sources.folder),
    )
