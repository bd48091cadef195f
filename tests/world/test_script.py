import itertools
from collections import Counter

from llava_video.world.dice import Dice
from llava_video.world.script import Part, draw_parts

_STARTS_S = [1.0, 2.5, 4.0, 5.5, 9.0, 13.0, 17.0]


def _all_parts(num_things: int = 3) -> list[list[Part]]:
    return [draw_parts(Dice("script", idx), num_things, _STARTS_S, 20.0) for idx in range(400)]


def test_identities_are_unique_and_often_alike() -> None:
    alike = 0
    for parts in _all_parts(4):
        pairs = {(part.colour, part.shape) for part in parts}
        assert len(pairs) == len(parts) == 4
        colours, shapes = zip(*pairs, strict=True)
        alike += len(set(colours)) < 4 or len(set(shapes)) < 4
    assert alike > 200  # else a shape alone would tell nearly every object


def test_nobody_does_what_cannot_be() -> None:
    for parts in _all_parts():
        assert sum(act.kind == "hide" for part in parts for act in part.acts) <= 1
        assert sum(part.victim_of is not None for part in parts) <= 1
        for idx, part in enumerate(parts):
            kinds = [act.kind for act in part.acts]
            assert kinds.count("enter") == 0 or kinds.index("enter") == 0
            assert kinds.count("leave") == 0 or kinds.index("leave") == len(kinds) - 1
            assert sum(kind in ("grow", "shrink") for kind in kinds) <= 1
            assert kinds.count("recolour") <= 1
            if "recolour" in kinds:
                assert sum(other.shape == part.shape for other in parts) == 1
            if "grow" in kinds:
                assert part.size == "small"
            if part.victim_of is not None:
                runner = parts[part.victim_of]
                assert [act.kind for act in runner.acts].count("collide") == 1
                assert part.victim_of != idx
                assert runner.colour != part.colour  # of one colour they would melt together
                assert kinds == []


def test_acts_of_one_object_leave_time_for_each_other() -> None:
    for parts in _all_parts():
        for part in parts:
            starts = [act.start_s for act in part.acts]
            assert all(b - a >= 3.5 for a, b in itertools.pairwise(starts))


def test_every_kind_and_direction_is_drawn() -> None:
    acts = [act for parts in _all_parts() for part in parts for act in part.acts]
    kinds = Counter(act.kind for act in acts)
    assert set(kinds) == {
        "move", "enter", "leave", "grow", "shrink", "recolour", "hide", "collide",
    }  # fmt: skip
    moves = Counter(act.direction for act in acts if act.kind == "move")
    assert len(moves) == 8
    assert max(moves.values()) < 0.25 * moves.total()


def test_a_late_move_goes_on_to_the_end() -> None:
    acts = [act for parts in _all_parts() for part in parts for act in part.acts]
    late = [act for act in acts if act.kind == "move" and act.start_s == 17.0]
    assert late
    assert all(act.goes_on and act.length_s == 3.0 for act in late)
    assert not any(act.goes_on for act in acts if act.start_s < 17.0)
