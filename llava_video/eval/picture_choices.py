"""Local copies of benchmarks of pictures (and short videos) with choices → examples.

As `video_choices.py`. Knows no model.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llava_video.errors import ConfigError
from llava_video.eval.example import Example, examples_of, known_letter, lettered, letters
from llava_video.eval.files import annotation_files
from llava_video.eval.media import Footage, MediaIndex
from llava_video.eval.video_choices import DIRECTLY
from llava_video.tables import Row, read_rows

# Rows of one question whose choices change places carry its index plus a multiple of this.
_CIRCLE = 1_000_000
_LONGEST_INDEX = 64  # characters; a picture in base64 is longer
_BREAKFAST_RATE_HZ = 15.0
_BREAKFAST_DIMENSION = 12


def read_mmbench(folder: Path) -> Iterator[Example]:
    """Read MMBench, each row asked once.

    Files: `MMBench_DEV_EN.tsv` as OpenCompass publishes it, or the parquet of lmms-lab/MMBench.
    Fields: `index`, `hint`, `question`, `A` to `D`, `answer` (a letter; the test split has none),
    `category`, `l2-category` (or `L2-category`), `image` (base64, bytes, or the index of the row
    that has the picture). Rows that repeat a question with its choices in another order (index plus
    1,000,000, 2,000,000, …) stand for themselves, in one cluster: this is the plain accuracy, not
    the circular one, which needs all of them to be right. Prompt: lmms-eval's, hint first, "There
    are several options:".
    """
    patterns = ("MMBench*.tsv", "*.tsv", "en/dev-*.parquet", "**/dev-*.parquet", "**/*.parquet")
    for path in annotation_files(folder, patterns, "MMBench"):
        pictures: dict[int, bytes] = {}

        def make(row: Row, pictures: dict[int, bytes] = pictures) -> Example:
            index = row.whole("index")
            names = tuple(name for name in "ABCDE" if row.has(name))
            if names != letters(names):
                raise ConfigError(f"{row.where} has the choices {names}.", "A, B, … in order.")
            choices = tuple(row.text(name) for name in names)
            pictures[index] = _picture(row, pictures)
            hint = f"{row.text('hint')} " if row.has("hint") else ""
            options = f"There are several options:\n{lettered(choices)}"
            known = row.has("answer")
            kinds = {"category": ("category",), "ability": ("l2-category", "L2-category")}
            return Example(
                id=str(index),
                cluster=str(index % _CIRCLE),
                footage=Footage(pictures=(pictures[index],)),
                prompt=f"{hint}{row.text('question')} {options}\n{DIRECTLY}",
                choices=letters(choices),
                answer=known_letter(row, row.text("answer"), choices) if known else None,
                groups={k: row.text(*names) for k, names in kinds.items() if row.has(*names)},
            )

        yield from examples_of(read_rows(path), make)


def read_seedbench(folder: Path) -> Iterator[Example]:
    """Read SEED-Bench (the first).

    Files: `SEED-Bench.json` of AILab-CVC/SEED-Bench with pictures and videos in the folder, or the
    parquet of lmms-lab/SEED-Bench, where a video is a list of pictures. Fields (its DATASET.md):
    `question_id`, `question`, `choice_a` to `choice_d`, `answer` (a letter), `data_type` (image or
    video), `data_id` (the file), `question_type_id` (1 to 12), `segment`: start and end in seconds
    for dimension 11, in frames of 15 a second for 12. Prompt: lmms-eval's.
    """
    media = MediaIndex(folder)

    def make(row: Row) -> Example:
        choices = tuple(row.text(f"choice_{letter}") for letter in "abcd")
        kind = row.text("data_type").lower()
        dimension = row.whole("question_type_id")
        return Example(
            id=row.text("question_id"),
            cluster=row.text("data_id"),
            footage=_seed_footage(row, media, dimension),
            prompt=f"{row.text('question')}\n{lettered(choices)}\n{DIRECTLY}",
            choices=letters(choices),
            answer=known_letter(row, row.text("answer"), choices),
            groups={"dimension": str(dimension), "data": kind},
        )

    for path in annotation_files(
        folder, ("SEED-Bench.json", "*.json", "**/test-*.parquet", "**/*.parquet"), "SEED-Bench"
    ):
        yield from examples_of(read_rows(path, "questions"), make)


def _seed_footage(row: Row, media: MediaIndex, dimension: int) -> Footage:
    if row.has("image"):
        stored = row.value("image")
        images = stored if isinstance(stored, list) else [stored]
        return Footage(pictures=tuple(_bytes_of(row, image) for image in images))
    if not row.has("segment"):
        return media.footage(row.text("data_id"))
    span = row.value("segment")
    if not isinstance(span, list) or len(span) != 2:
        raise ConfigError(f"{row.where}: segment = {span!r}.", "a list of start and end.")
    rate_hz = _BREAKFAST_RATE_HZ if dimension == _BREAKFAST_DIMENSION else 1.0
    start_s, end_s = (float(moment) / rate_hz for moment in span)
    return media.footage(row.text("data_id"), start_s=start_s, end_s=end_s)


def _picture(row: Row, earlier: Mapping[int, bytes]) -> bytes:
    image = row.value("image")
    if isinstance(image, str) and len(image) <= _LONGEST_INDEX and image.isdigit():
        if int(image) not in earlier:
            raise ConfigError(f"{row.where}: no row {image} before it has its picture.", "")
        return earlier[int(image)]
    return _bytes_of(row, image)


def _bytes_of(row: Row, image: Any) -> bytes:
    """Return an encoded picture: base64 text, bytes, or what Parquet files keep of one."""
    if isinstance(image, Mapping):
        image = image.get("bytes")
    if isinstance(image, str):
        try:
            image = base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError) as cause:
            raise ConfigError(f"{row.where}: the image is no base64.", "fetch it again.") from cause
    if not isinstance(image, bytes) or not image:
        raise ConfigError(f"{row.where} holds no picture.", "fetch the file again.")
    return image
