"""A checkpoint and the layout it is to have → the configuration that is written, and what it costs.

transformers' classes mark a picture by a token of the vocabulary: the first ids that the tokenizer
does not know become `<image>` and `<video>`. Where the embedding has no rows for them, rows are
appended up to a multiple of 64. Converting back cuts them off. Reads small files, no weight.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from llava_video.model.dimensions import ModelDimensions
from llava_video.model.export import config_values
from llava_video.model.json_fields import read_json_object
from llava_video.model.model_config import FileFormat, ModelConfig
from llava_video.model.names import file_names
from llava_video.model.sources import Sources
from llava_video.model.tokenizer import Tokenizer

# Rows of the original vocabulary, in a config.json that a conversion writes: transformers keeps
# keys it does not know.
TEXT_ROWS: Final = "text_vocab_size"
_ROWS_OF: Final = 64  # vocabularies of conversions are whole multiples of it
# What a video is laid out by and transformers' classes do not read, where it is not their own.
_VIDEO_KEYS: Final = (
    "mm_newline_position",
    "mm_pooling_position",
    "add_time_instruction",
    "add_faster_video",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is written: the configuration, with as many rows of vocabulary as the layout wants.

    Attributes:
        layout: whose.
        config: what the new checkpoint is read as.
        num_tower_layers: layers of the vision tower in the files, those that nothing needs too.
        num_text_rows: rows of vocabulary before those that mark pictures and videos.
        notes: what changed.
    """

    layout: FileFormat
    config: ModelConfig
    num_tower_layers: int
    num_text_rows: int
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, str]:
        """Our name → the name in the files, of every tensor."""
        vision = replace(self.config.vision, num_layers=self.num_tower_layers)
        return file_names(replace(self.config.dimensions, vision=vision), self.layout)


def goal_of(
    sources: Sources, config: ModelConfig, stored: ModelDimensions, layout: FileFormat
) -> Goal:
    """Say what is written.

    Args:
        sources: the checkpoint's folders.
        config: what it is read as.
        stored: its sizes with the layers of its tower that are there and do not run.
        layout: of the target.

    Raises:
        CheckpointError: its member has no class in transformers, or its tokenizer has more ids than
            the embedding rows.
    """
    values = read_json_object(sources.config_folder / "config.json")
    num_text_rows = values.get(TEXT_ROWS)
    if not isinstance(num_text_rows, int):
        num_text_rows = _num_text_rows(config) if config.layout == "hf" else config.text.vocab_size
    as_it_is = Goal(
        layout=layout,
        config=config,
        num_tower_layers=stored.vision.num_layers,
        num_text_rows=num_text_rows,
    )
    tokenizer = Tokenizer(sources.tokenizer_folder)
    tokenizer.check_rows(config.text.vocab_size)
    if layout == config.layout:
        return as_it_is
    if layout == "original":
        return _cut(as_it_is)
    return _grown(as_it_is, tokenizer.num_ids)


def _num_text_rows(config: ModelConfig) -> int:
    """Count the rows of vocabulary before those that a conversion of llava-hf appended."""
    num_rows = config.text.vocab_size
    ids = (config.values.get(key) for key in ("image_token_index", "video_token_index"))
    first = min((one for one in ids if isinstance(one, int)), default=num_rows)
    is_appended = config.vision.kind == "clip" and 0 <= num_rows - first <= _ROWS_OF
    return first if is_appended else num_rows


def _grown(goal: Goal, num_ids: int) -> Goal:
    """Let the first ids that no text uses mark pictures and videos, and see that they have rows.

    Args:
        goal: what is written otherwise.
        num_ids: ids the tokenizer knows; further tokens can only be the next ones.
    """
    config, num_rows = goal.config, goal.config.text.vocab_size
    hf = config_values(config, "hf", {})  # refuses a member without a class
    goal = replace(goal, notes=tuple(_unlike_transformers(hf)))
    keys = [key for key in ("image_token_index", "video_token_index") if key in hf]
    ids: dict[str, int | None] = {key: num_ids + idx for idx, key in enumerate(keys)}
    if num_ids + len(ids) <= num_rows:
        return replace(goal, config=_with_rows(config, num_rows, ids))
    new_rows = -(-(num_ids + len(ids)) // _ROWS_OF) * _ROWS_OF
    note = (
        f"the vocabulary has {new_rows:,} rows instead of {num_rows:,}: <image> is id {num_ids}, "
        "and every new row is the mean of the old ones."
    )
    return replace(goal, config=_with_rows(config, new_rows, ids), notes=(*goal.notes, note))


def _unlike_transformers(hf: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of a video's layout transformers' class has no word for."""
    found = [f"{key} = {hf[key]!r}" for key in _VIDEO_KEYS if hf.get(key)]
    if found:
        yield (
            f"transformers' class reads no {' and no '.join(found)}: what it makes of a video "
            "differs; this library reads the keys back."
        )


def _cut(goal: Goal) -> Goal:
    """Take the rows away that a conversion appended."""
    ids: dict[str, int | None] = {"image_token_index": None, "video_token_index": None}
    config = _with_rows(goal.config, goal.num_text_rows, ids)
    pad_id = config.generation.pad_id
    if pad_id is not None and pad_id >= goal.num_text_rows:  # added with the picture's token
        config = replace(config, generation=replace(config.generation, pad_id=None))
        config = replace(config, values={**config.values, "pad_token_id": None})
    num_cut = goal.config.text.vocab_size - goal.num_text_rows
    note = f"{num_cut} rows of the vocabulary that a conversion had added were cut off."
    return replace(goal, config=config, notes=(note,) if num_cut else ())


def _with_rows(config: ModelConfig, num_rows: int, ids: Mapping[str, int | None]) -> ModelConfig:
    values = {**config.values, **ids, "vocab_size": num_rows}
    values = {key: value for key, value in values.items() if key not in ids or value is not None}
    text = replace(config.text, vocab_size=num_rows)
    return replace(config, values=values, dimensions=replace(config.dimensions, text=text))
