"""Files of conversations → the records of one epoch, mixed by strategy and weight.

The files are LLaVA's: a list of {"id", "image" or "video", "conversations"}, as .json or .jsonl.
Reads text alone and opens no picture or video; says of every record that cannot be right why.
"""

import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llava_video.errors import ConfigError, ExampleError
from llava_video.model.labels import turns_of_sample
from llava_video.model.prompt import Turn
from llava_video.model.tokenizer import IMAGE_MARK
from llava_video.train.settings import SourceSettings

VIDEO_MARK = "<video>"
MediaKind = Literal["image", "video"]

_MARKS = f"{IMAGE_MARK}|{VIDEO_MARK}"
_BRACES = re.compile(r"^(.*)\{([^{}]*)\}(.*)$")


@dataclass(frozen=True, slots=True)
class Media:
    """One picture or video of a record, in the order of the marks."""

    kind: MediaKind
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One entry of a file, not looked into yet.

    Attributes:
        name: its id and where it stands, for people.
        values: what stands there.
        folder: where its paths begin.
    """

    name: str
    values: Mapping[str, Any]
    folder: str

    @property
    def modality(self) -> Literal["text", "image", "video"]:
        """What it shows."""
        return (
            "video" if self.values.get("video") else "image" if self.values.get("image") else "text"
        )

    @property
    def num_words(self) -> int:
        """Words of what is said: what is known of its length before anything is opened."""
        given = self.values.get("conversations")
        said = given if isinstance(given, list) else []  # else the record breaks when it is made
        texts = [str(one.get("value", "")) for one in said if isinstance(one, Mapping)]
        texts += [str(self.values.get(key, "")) for key in ("prompt", "chosen", "rejected")]
        return sum(len(text.split()) for text in texts)

    def conversation(self) -> tuple[tuple[Turn, ...], tuple[Media, ...]]:
        """Return the turns, every mark written `<image>`, and what each mark shows.

        `<video>` is a video; `<image>` is the next picture, or the next video where no picture is
        left, for the authors' files write `<image>` for both.

        Raises:
            ExampleError: no conversation, an empty answer, or marks that do not match the media.
        """
        said = self.values.get("conversations")
        if not isinstance(said, list) or not all(isinstance(one, Mapping) for one in said):
            is_pair = "chosen" in self.values
            hint = "pairs of answers want `dpo: {}` in the stage." if is_pair else ""
            raise self.error("has no list of conversations", "conversation", hint)
        media = tuple(self._media_of(said))
        marked = [_with_image_marks(one) for one in said] if media else said
        try:
            turns = turns_of_sample(marked)
        except ConfigError as cause:
            raise self.error(cause.message.rstrip("."), "conversation") from cause
        roles = [turn.role for turn in turns]
        if not turns or roles != ["user", "assistant"] * (len(roles) // 2):
            raise self.error(f"has the roles {roles}", "conversation")
        if not all(turn.text.strip() for turn in turns if turn.role == "assistant"):
            raise self.error("has an empty answer", "empty answer")
        return turns, media

    def _media_of(self, said: Sequence[Mapping[str, Any]]) -> Iterator[Media]:
        left: dict[str, list[str]] = {kind: self._paths(kind) for kind in ("image", "video")}
        num_media = sum(map(len, left.values()))
        asked = [str(one.get("value")) for one in said if one.get("from") == "human"]
        marks = [mark for text in asked for mark in re.findall(_MARKS, text)]
        if not num_media and IMAGE_MARK not in marks:
            marks = []  # without a video, the word is a word
        mismatch = self.error(f"has {len(marks)} marks and {num_media} pictures or videos", "marks")
        for mark in marks:
            kind: MediaKind = "image" if mark == IMAGE_MARK and left["image"] else "video"
            if not left[kind]:
                raise mismatch
            yield Media(kind, left[kind].pop(0))
        if any(left.values()):
            raise mismatch

    def _paths(self, kind: str) -> list[str]:
        given = self.values.get(kind)
        paths = given if isinstance(given, list) else [given] if given else []
        if not all(isinstance(path, str) and path for path in paths):
            raise self.error(f"has {kind} = {given!r}", "marks")
        return [path if "://" in path else str(Path(self.folder) / path) for path in paths]

    def error(self, what: str, kind: str, hint: str = "") -> ExampleError:
        """Return the error of this record."""
        return ExampleError(f"{self.name} {what}.", hint, kind)


def read_mixture(sources: Sequence[SourceSettings], seed: int) -> tuple[Record, ...]:
    """Return the records of one epoch, file by file.

    Args:
        sources: what is mixed.
        seed: of the random choices; each file has its own.

    Raises:
        ConfigError: a file is missing, or no list of objects; or nothing is left.
    """
    records: list[Record] = []
    for idx, source in enumerate(sources):
        found = [record for path in _braced(source.path) for record in _read(path, source.media)]
        generator = random.Random(f"{seed} {idx}")
        chosen = _chosen(found, source.sampling_strategy, generator)
        records += _weighted(chosen, source.weight, generator)
    if not records:
        raise ConfigError("the mixture has no example.", "see to sampling_strategy and weight.")
    return tuple(records)


def _braced(path: str) -> list[str]:
    """Return the paths of 'data/{a,b}.json', or the one that is given."""
    found = _BRACES.match(path)
    if found is None:
        return [path]
    before, inner, after = found.groups()
    return [f"{before}{name.strip()}{after}" for name in inner.split(",")]


def _read(path: str, media: str) -> Iterator[Record]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        if path.endswith(".jsonl"):
            # `splitlines` would also cut at U+2028, U+2029 and U+0085, which JSON allows in a text.
            entries = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            entries = json.loads(text)
    except (OSError, UnicodeError, ValueError) as cause:
        raise ConfigError(
            f"{path} cannot be read: {cause}.", "give a .json list, or a .jsonl file."
        ) from cause
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise ConfigError(f"{path} is no list of objects.", "give a .json list, or a .jsonl file.")
    folder = media or str(Path(path).parent)
    for idx, values in enumerate(entries):
        yield Record(name=f"{path}[{idx}] (id {values.get('id')})", values=values, folder=folder)


def _chosen(records: list[Record], strategy: str, generator: random.Random) -> list[Record]:
    """Apply a sampling strategy; a share is rounded up, as in the original code."""
    how, _, amount = strategy.partition(":")
    if how == "all":
        return records
    if amount.endswith("%"):
        num_kept = math.ceil(float(amount[:-1]) * len(records) / 100)
    else:
        num_kept = int(amount)
    num_kept = min(num_kept, len(records))
    if how == "first":
        return records[:num_kept]
    if how == "end":
        return records[len(records) - num_kept :]
    return [records[idx] for idx in sorted(generator.sample(range(len(records)), num_kept))]


def _weighted(records: list[Record], weight: float, generator: random.Random) -> list[Record]:
    """Return every record floor(weight) times, and a random rest of them once more."""
    num_whole, rest = divmod(round(weight * len(records)), max(1, len(records)))
    chosen = sorted(generator.sample(range(len(records)), rest))
    return records * num_whole + [records[idx] for idx in chosen]


def _with_image_marks(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write every `<video>` of a question as `<image>`: the model knows one mark."""
    text = said.get("value")
    if not isinstance(text, str) or said.get("from") != "human":
        return said
    return {**said, "value": text.replace(VIDEO_MARK, IMAGE_MARK)}
