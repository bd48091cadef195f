"""What all requests of one engine share → the rows of a prompt and the writer of an answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from llava_video.engine.arena import Arena
from llava_video.engine.constraint import ConstraintCompiler
from llava_video.engine.prefixes import KeptPrefixes
from llava_video.engine.request import Part
from llava_video.engine.rows import PromptRows
from llava_video.engine.settings import GenerationSettings
from llava_video.engine.writer import AnswerWriter
from llava_video.model.kept_rows import KeptRows
from llava_video.model.llava import LlavaModel
from llava_video.model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What all requests of one engine share."""

    model: LlavaModel
    tokenizer: Tokenizer
    eos_ids: frozenset[int]
    repetition_penalty: float
    constraints: ConstraintCompiler
    tile_chunk: int
    arena: Arena
    prefixes: KeptPrefixes
    kept_rows: KeptRows | None = None

    def rows_of(self, parts: Sequence[Part]) -> PromptRows:
        """Return the rows of what is left of a prompt, a queue that fills itself."""
        return PromptRows(self.model, parts, self.tile_chunk, self.kept_rows)

    def writer_of(self, generation: GenerationSettings) -> AnswerWriter:
        """Return the writer of an answer.

        Raises:
            ConfigError: the settings ask for what the tokenizer or the grammar cannot give.
        """
        schema = generation.schema
        return AnswerWriter(
            generation,
            self.tokenizer,
            eos_ids=self.eos_ids,
            repetition_penalty=self.repetition_penalty,
            constraint=self.constraints.compile(schema) if schema is not None else None,
        )
