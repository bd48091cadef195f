"""Each question on a scene made by hand: a square moves at 2 s, a ring enters at 4 s."""

from collections.abc import Callable, Iterator

from scene_maker import moving, scene, thing

from llava_video.world import ask_events
from llava_video.world.dice import Dice
from llava_video.world.question import Asker, Question
from llava_video.world.scene import Event, Scene
from llava_video.world.settings import WorldSettings
from llava_video.world.track import Track
from llava_video.world.witness import Witness

SQUARE, MOVE = moving(2.0, 3.0, 0.3, y=0.2)
STOP = Event("stop", 3.0, 3.0, 0)
RING = thing("ring", "blue", Track((0.0, 4.0, 5.5), (-0.2, -0.2, 0.5)), 0.7)
ENTER = Event("enter", 4.0, 5.5, 1, "right")
MADE = scene(SQUARE, RING, events=(MOVE, STOP, ENTER))


def asked(
    ask: Callable[[Asker], Iterator[Question]], made: Scene = MADE, **settings: float
) -> set[tuple[str, str]]:
    """Return all pairs of text and answer that a question can take, over many draws."""
    return {
        (question.text, question.answer)
        for idx in range(80)
        for question in ask(Asker(Witness(made, WorldSettings(**settings)), Dice("ev", idx)))
    }


def test_direction_of_who_moves_once() -> None:
    assert asked(ask_events.ask_direction) == {
        ("In which direction does the red square move?", "right"),
        ("Which way does the red square go?", "right"),
    }
    out = Event("leave", 5.0, 6.0, 0, "up")
    assert asked(ask_events.ask_direction, scene(SQUARE, events=(MOVE, STOP, out))) == set()


def test_sides() -> None:
    assert asked(ask_events.ask_side) == {("From which side does the blue ring enter?", "left")}
    path = Track((0.0, 2.0, 3.5), (0.5, 0.5, 1.2))
    leaves = scene(thing(y=path), events=(Event("leave", 2.0, 3.5, 0, "down"),))
    assert asked(ask_events.ask_side, leaves) == {
        ("On which side does the red square leave?", "bottom")
    }


def test_which_does_what_only_one_does() -> None:
    # Both move and both come to a stop, one of them by entering.
    assert asked(ask_events.ask_which) == {("Which object enters?", "blue ring")}
    alone = scene(SQUARE, thing("ring", "blue", 0.8, 0.8), events=(MOVE, STOP))
    assert asked(ask_events.ask_which, alone) == {
        ("Which object moves?", "red square"),
        ("Which object stops?", "red square"),
    }


def test_hits() -> None:
    struck = thing("ring", "blue", Track((0.0, 3.0, 4.0), (0.7, 0.7, 0.85)), 0.2)
    hit = Event("collide", 3.0, 3.0, 0, "right", other=1)
    on = Event("move", 3.0, 4.0, 1, "right", "slowly")
    found = asked(ask_events.ask_hits, scene(SQUARE, struck, events=(MOVE, hit, STOP, on)))
    assert found == {
        ("What does the red square hit?", "blue ring"),
        ("Which object does the red square run into?", "blue ring"),
    }


def test_actions() -> None:
    still = thing("cross", "green", 0.85, 0.45, 0.08)
    assert asked(ask_events.ask_action, scene(SQUARE, RING, still, events=(MOVE, STOP, ENTER))) == {
        ("What does the red square do?", "moves"),
        ("What does the blue ring do?", "enters"),
        ("What does the green cross do?", "nothing"),
    }


def test_order_names_both_either_way_round() -> None:
    assert asked(ask_events.ask_order) == {
        ("Which does something first, the red square or the blue ring?", "red square"),
        ("Which does something first, the blue ring or the red square?", "red square"),
    }
    assert asked(ask_events.ask_before) == {
        ("Does the red square move before the blue ring enters?", "yes"),
        ("Does the blue ring enter before the red square moves?", "no"),
    }


def test_order_needs_time_between() -> None:
    # 2 s apart: with looks 1 s apart it can be told, with 1.25 s it cannot.
    slow = thing("ring", "blue", Track((0.0, 4.0, 6.0), (-0.2, -0.2, 0.5)), 0.7)
    late = Event("enter", 4.0, 6.0, 1, "right")
    mover, move = moving(2.0, 3.5, 0.3, y=0.2)
    made = scene(mover, slow, events=(move, late))
    assert asked(ask_events.ask_order, made, sampled_hz=1.0)
    assert asked(ask_events.ask_order, made, sampled_hz=0.8) == set()


def test_when() -> None:
    assert asked(ask_events.ask_when) == {
        ("When does the red square move?", "2.0 s"),
        ("When does the red square stop?", "3.0 s"),
        ("When does the blue ring enter?", "4.0 s"),
    }
    assert asked(ask_events.ask_when, sampled_hz=0.8) == set()


def test_when_of_what_happens_twice_is_not_asked() -> None:
    path = Track((0.0, 1.0, 2.0, 4.0, 5.0), (0.2, 0.2, 0.4, 0.4, 0.7))
    moves = tuple(Event("move", t, t + 1, 0, "right", "slowly") for t in (1.0, 4.0))
    assert asked(ask_events.ask_when, scene(thing(x=path), events=moves)) == set()
