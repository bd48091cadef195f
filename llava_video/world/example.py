"""Settings and names of a draw → a clip's scene, captions and questions, and its LLaVA records.

A record is what LLaVA's training reads (`id`, `video`, `conversations` with `<image>` in front of
the first question), with `answers` and `truth` beside it for whoever judges answers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from llava_video.config import to_mapping
from llava_video.world import ask_events, ask_looks, ask_yes_no
from llava_video.world.caption import STYLES, CaptionStyle, caption
from llava_video.world.composer import compose
from llava_video.world.dice import Dice
from llava_video.world.question import Asker, Question
from llava_video.world.scene import Scene
from llava_video.world.settings import WorldSettings
from llava_video.world.witness import Witness

Ask = Callable[[Asker], Iterator[Question]]

PROMPTS: Final[dict[CaptionStyle, tuple[str, ...]]] = {
    "short": ("Describe the video briefly.", "What happens in this video?"),
    "detailed": ("Describe the video in detail.", "Describe everything in this video."),
    "timed": ("Describe the video with times.", "What happens when in this video?"),
}
_ASKS: Final[tuple[Ask, ...]] = (
    ask_looks.ask_shape,
    ask_looks.ask_colour,
    ask_looks.ask_size,
    ask_looks.ask_place,
    ask_looks.ask_count,
    ask_looks.ask_count_alike,
    ask_looks.ask_count_now,
    ask_looks.ask_sign,
    ask_events.ask_direction,
    ask_events.ask_side,
    ask_events.ask_which,
    ask_events.ask_hits,
    ask_events.ask_action,
    ask_events.ask_order,
    ask_events.ask_before,
    ask_events.ask_when,
    ask_yes_no.ask_is_there,
    ask_yes_no.ask_is_there_now,
    ask_yes_no.ask_does,
    ask_yes_no.ask_did_change,
    ask_yes_no.ask_did_number,
    ask_yes_no.ask_moves_to,
    ask_yes_no.ask_beside,
    ask_yes_no.ask_sign_says,
)


@dataclass(frozen=True, slots=True)
class Example:
    """A clip with all that is known about it.

    Attributes:
        scene: the truth.
        captions: style → text.
        questions: at most one of each kind, in a drawn order.
    """

    scene: Scene
    captions: dict[CaptionStyle, str]
    questions: tuple[Question, ...]


def make_example(settings: WorldSettings, *names: object) -> Example:
    """Make the clip of a draw.

    Args:
        settings: the world it is drawn from.
        names: what tells it from all other clips: a split, a seed, a number.

    Raises:
        ConfigError: the objects find no room.
    """
    scene = compose(settings, *names)
    witness = Witness(scene, settings)
    captions = {style: caption(witness, style) for style in STYLES}
    return Example(scene, captions, questions_of(witness, settings))


def questions_of(
    witness: Witness, settings: WorldSettings, round_idx: int = 0
) -> tuple[Question, ...]:
    """Return what is asked of a clip, at most one question of each kind, in a drawn order.

    Args:
        witness: what is certain about it.
        settings: the world it is drawn from.
        round_idx: another one draws anew what is asked about and how.
    """
    dice = Dice(witness.scene.name, "questions", *([round_idx] if round_idx else []))
    asker = Asker(witness, dice)
    found = [question for ask in _ASKS for question in ask(asker)]
    found += ask_yes_no.ask_did_anything(asker, settings)
    found += ask_yes_no.ask_is_sign(asker, settings)
    return tuple(dice.shuffled(found))


def records(example: Example, name: str, video: str, *, max_turns: int = 8) -> list[dict[str, Any]]:
    """Turn an example into records of a LLaVA data file.

    Args:
        example: the clip.
        name: what ids begin with.
        video: its file, from the data file's folder.
        max_turns: most questions of one conversation; more become another record.

    Returns:
        A record for each caption and one for each conversation. Each has `answers`, one a turn,
        and `truth`, the scene.
    """
    dice = Dice(example.scene.name, "prompts")
    truth = to_mapping(example.scene)
    turns_of = {
        f"{name}-{style}": [Question(style, dice.pick(PROMPTS[style]), example.captions[style])]
        for style in STYLES
    }
    for start in range(0, len(example.questions), max_turns):
        turns_of[f"{name}-chat{start // max_turns}"] = list(
            example.questions[start : start + max_turns]
        )
    return [
        {
            "id": record_id,
            "video": video,
            "conversations": list(_messages(turns)),
            "answers": [to_mapping(turn) for turn in turns],
            "truth": truth,
        }
        for record_id, turns in turns_of.items()
    ]


def _messages(turns: list[Question]) -> Iterator[dict[str, str]]:
    for idx, turn in enumerate(turns):
        yield {"from": "human", "value": turn.text if idx else f"<image>\n{turn.text}"}
        yield {"from": "gpt", "value": turn.answer}
