"""A folder that `llava-video world` wrote → its questions, or its captions, as examples.

Questions are those of `own_questions.py`, counted by type, by what they test ("skill"), and those
that put two events in order together. Captions are scored by what they claim
(`caption_scoring.py`); "right" of a caption means word for word. The folder's `world.json` says how
often clips are looked at, which decides what is certain of them. Knows no model.
"""

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

from llava_video.config import from_mapping
from llava_video.errors import ConfigError
from llava_video.eval.caption_scoring import measure_caption
from llava_video.eval.example import Example, Measure, examples_of
from llava_video.eval.files import annotation_files
from llava_video.eval.media import MediaIndex
from llava_video.eval.own_questions import read_questions
from llava_video.tables import Row, read_rows
from llava_video.world.caption import STYLES, CaptionStyle
from llava_video.world.question import ANSWERS, YES_NO
from llava_video.world.scene import Scene
from llava_video.world.settings import WorldSettings
from llava_video.world.witness import Witness

# The longest of them has about 1,000 letters, of which a token has three or more.
CAPTION_TOKENS: Final = 400

_COUNTS: Final = ("count", "count_alike", "count_now")
_IN_ORDER: Final = ("order", "before")


def groups_of(kind: str) -> dict[str, str]:
    """Return what a question of a kind is counted with.

    >>> groups_of("before")
    {'type': 'before', 'skill': 'yes/no', 'events': 'in order'}
    >>> groups_of("count_now")
    {'type': 'count_now', 'skill': 'count'}
    """
    skill = "count" if kind in _COUNTS else kind
    if ANSWERS.get(kind) == YES_NO:
        skill = "yes/no"
    order = {"events": "in order"} if kind in _IN_ORDER else {}
    return {"type": kind, "skill": skill, **order}


def read_world(folder: Path) -> Iterator[Example]:
    """Read every question about the clips of a folder."""
    for example in read_questions(folder):
        kind = example.groups.get("type")
        yield replace(example, groups=groups_of(kind)) if kind else example


def read_captions(folder: Path) -> Iterator[Example]:
    """Read every caption of the clips of a folder, with what it is to claim."""
    media = MediaIndex(folder)
    settings = _settings(folder)
    for path in annotation_files(folder, ("*.jsonl",), "captions"):
        rows = (row for row in read_rows(path, "items") if _is_caption(row))
        yield from examples_of(rows, functools.partial(_caption, media=media, settings=settings))


def _settings(folder: Path) -> WorldSettings:
    """Return how the clips were made; the usual way where the folder does not say.

    Raises:
        ConfigError: its world.json is none.
    """
    path = folder / "world.json"
    if not path.is_file():
        return WorldSettings()
    try:
        return from_mapping(WorldSettings, json.loads(path.read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise ConfigError(f"{path} holds no settings: {cause}.", "write the clips anew.") from cause


def _is_caption(row: Row) -> bool:
    if row.broken:
        return True  # it becomes an example that says what is wrong
    answers = row.values.get("answers")
    if not isinstance(answers, list):
        return False
    return any(answer.get("kind") in STYLES for answer in answers if isinstance(answer, dict))


def _caption(row: Row, *, media: MediaIndex, settings: WorldSettings) -> Example:
    answers = row.value("answers")
    if len(answers) != 1:
        raise ConfigError(
            f"{row.where} has {len(answers)} answers, one of them a caption.", "a row a caption."
        )
    answer = Row(f"{row.where}, caption", answers[0])
    style, video = cast("CaptionStyle", answer.text("kind")), row.text("video")
    scene = _scene(row, style, settings)

    def measure(text: str) -> tuple[Measure, ...]:
        # Made for each text: what a witness has looked at is large.
        return measure_caption(Witness(scene, settings), style, text)

    return Example(
        id=row.text("id"),
        cluster=video,
        footage=media.footage(video, "videos"),
        prompt=answer.text("text"),
        answer=answer.text("answer"),
        groups={"type": style},
        measure=measure,
        max_new_tokens=CAPTION_TOKENS,
    )


def _scene(row: Row, style: CaptionStyle, settings: WorldSettings) -> Scene:
    """Return what a clip shows, once its true caption could be made of it.

    Raises:
        ConfigError: it is missing, or no scene of the small world.
    """
    truth = row.value("truth")
    try:
        scene = from_mapping(Scene, truth)
        measure_caption(Witness(scene, settings), style, "")
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, IndexError) as cause:
        found = cause.message if isinstance(cause, ConfigError) else repr(cause)
        raise ConfigError(f"{row.where}: truth is no clip: {found}", "write it anew.") from cause
    return scene
