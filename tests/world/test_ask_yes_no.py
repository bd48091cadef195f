"""Each question on scenes made by hand: every claim that can be made is right or wrong as said."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from scene_maker import moving, scene, thing

from llava_video.world import ask_yes_no
from llava_video.world.dice import Dice
from llava_video.world.question import Asker, Question
from llava_video.world.scene import Event, Scene, Sign
from llava_video.world.settings import WorldSettings
from llava_video.world.track import Track
from llava_video.world.witness import Witness

SQUARE, MOVE = moving(2.0, 3.0, 0.3, y=0.2)
STOP = Event("stop", 3.0, 3.0, 0)
RING = thing("ring", "blue", 0.5, 0.7)
MADE = scene(SQUARE, RING, events=(MOVE, STOP))


def asked(
    ask: Callable[[Asker], Iterator[Question]], made: Scene = MADE, num_draws: int = 200
) -> dict[str, str]:
    """Return text → answer of all that a question can be, over many draws."""
    found: dict[str, str] = {}
    for idx in range(num_draws):
        for question in ask(Asker(Witness(made, WorldSettings()), Dice("yn", idx))):
            assert found.setdefault(question.text, question.answer) == question.answer
    return found


def claims(found: dict[str, str], answer: str) -> set[str]:
    return {text for text, said in found.items() if said == answer}


def test_there_is_what_there_is_and_the_wrong_ones_are_near() -> None:
    found = asked(ask_yes_no.ask_is_there)
    assert claims(found, "yes") == {"Is there a red square?", "Is there a blue ring?"}
    counts = Counter(
        question.text
        for idx in range(600)
        for question in ask_yes_no.ask_is_there(
            Asker(Witness(MADE, WorldSettings()), Dice("near", idx))
        )
        if question.answer == "no"
    )
    # Three in four wrong claims join one's colour to the other's shape: two of 46 possible ones.
    near = counts["Is there a red ring?"] + counts["Is there a blue square?"]
    assert 0.65 < near / counts.total() < 0.9


def test_now_is_not_before() -> None:
    gone = thing("ring", "blue", Track((0.0, 2.0, 4.0), (0.8, 0.8, 1.3)), 0.7)
    turned = thing("cross", "green", 0.2, 0.8, later=((4.0, "pink"),))
    events = (Event("leave", 2.0, 4.0, 1, "right"), Event("recolour", 4.0, 4.0, 2, colour="pink"))
    found = asked(ask_yes_no.ask_is_there_now, scene(thing(), gone, turned, events=events))
    now = {text for text in found if text.endswith("now?")}
    assert claims(found, "yes") & now == {
        "Is there a red square now?",
        "Is there a pink cross now?",
    }
    assert claims(found, "no") & now == {
        "Is there a blue ring now?",
        "Is there a green cross now?",
    }


def test_deeds_are_asked_of_who_did_them_and_who_did_not() -> None:
    assert asked(ask_yes_no.ask_does) == {
        "Does the red square move?": "yes",
        "Does the blue ring move?": "no",
        "Does the red square stop?": "yes",
        "Does the blue ring stop?": "no",
    }


def test_whoever_enters_is_not_said_not_to_move() -> None:
    enters = thing("ring", "blue", Track((0.0, 2.0, 4.0), (-0.2, -0.2, 0.5)), 0.7)
    made = scene(enters, thing(y=0.2), events=(Event("enter", 2.0, 4.0, 0, "right"),))
    assert asked(ask_yes_no.ask_does, made) == {
        "Does the blue ring enter?": "yes",
        "Does the red square enter?": "no",
    }


def test_changes() -> None:
    grown = thing(radius=Track((0.0, 2.0, 3.0), (0.09, 0.09, 0.144)), y=0.2)
    made = scene(grown, RING, events=(Event("grow", 2.0, 3.0, 0),))
    assert asked(ask_yes_no.ask_did_change, made) == {
        "Did the size of the red square change?": "yes",
        "Did the size of the blue ring change?": "no",
    }


@pytest.mark.parametrize(("end", "true"), [(1.3, {"change", "fewer"}), (0.85, {"as many"})])
def test_number(end: float, true: set[str]) -> None:
    path = Track((0.0, 2.0, 4.0), (0.6, 0.6, end))
    kind = "leave" if end > 1 else "move"
    made = scene(thing(x=path), RING, events=(Event(kind, 2.0, 4.0, 0, "right", "slowly"),))
    found = asked(ask_yes_no.ask_did_number, made)
    words = {"change", "more", "fewer", "as many"}
    said = {next(w for w in words if w in text): answer for text, answer in found.items()}
    assert {w for w, answer in said.items() if answer == "yes"} == true
    # Where the number changed, "more" and "as many" are wrong; where not, all but "as many".
    assert {w for w, answer in said.items() if answer == "no"} == words - true


def _share(ask: Callable[..., Iterator[Question]], made: Scene) -> tuple[float, set[str]]:
    """Return how often a question is asked, and its answers."""
    settings = WorldSettings(still_share=0.2, sign_share=0.25)
    found = [
        question.answer
        for idx in range(800)
        for question in ask(Asker(Witness(made, settings), Dice("share", idx)), settings)
    ]
    return len(found) / 800, set(found)


def test_anything_is_asked_of_lively_clips_as_often_as_of_still_ones() -> None:
    assert _share(ask_yes_no.ask_did_anything, scene(RING)) == (1.0, {"no"})
    share, answers = _share(ask_yes_no.ask_did_anything, MADE)
    assert answers == {"yes"}
    assert share == pytest.approx(0.2 / 0.8, abs=0.05)  # four lively clips to a still one


def test_signs_are_asked_for_as_often_where_there_are_none() -> None:
    sign = Sign("GO", 5, 5, 1)
    assert _share(ask_yes_no.ask_is_sign, scene(sign=sign)) == (1.0, {"yes"})
    share, answers = _share(ask_yes_no.ask_is_sign, scene())
    assert answers == {"no"}
    assert share == pytest.approx(0.25 / 0.75, abs=0.05)


def test_wrong_directions_are_a_quarter_turn_off_at_least() -> None:
    assert asked(ask_yes_no.ask_moves_to) == {
        "Does the red square move right?": "yes",
        "Does the red square move down?": "no",
        "Does the red square move left?": "no",
        "Does the red square move up?": "no",
    }


def test_beside() -> None:
    # The square ends at (0.6, 0.2), the ring stands at (0.5, 0.7): too near sideways to tell.
    assert asked(ask_yes_no.ask_beside) == {
        "Is the red square above the blue ring now?": "yes",
        "Is the blue ring above the red square now?": "no",
        "Is the red square below the blue ring now?": "no",
        "Is the blue ring below the red square now?": "yes",
    }


def test_a_wrong_word_is_as_long_as_the_right_one() -> None:
    found = asked(ask_yes_no.ask_sign_says, scene(sign=Sign("STOP", 5, 5, 1)), 400)
    assert claims(found, "yes") == {"Does the sign say STOP?"}
    wrong = claims(found, "no")
    assert len(wrong) > 10
    assert all(len(text) == len("Does the sign say STOP?") for text in wrong)
