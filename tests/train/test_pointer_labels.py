"""Pointers stand on the words that name things, and point at cells that show these."""

from dataclasses import replace
from pathlib import Path

import pytest

from llava_video.errors import ConfigError
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.train.dense_labels import LOOKS
from llava_video.train.examples import ExampleMaker
from llava_video.train.pointer import Pointer
from llava_video.train.pointer_labels import (
    pointers_of,
    pointers_of_caption,
    rows_shown,
    trails_of,
)
from llava_video.train.settings import DataSettings
from llava_video.train.small_world import WorldExamples
from llava_video.train.world_settings import DenseSettings, WorldSource
from llava_video.world.caption import CaptionStyle, Telling, caption
from llava_video.world.composer import compose
from llava_video.world.mentions import NOUNS, SIGN
from llava_video.world.splits import split_settings
from llava_video.world.vocabulary import COLOURS, SHAPES
from llava_video.world.witness import Witness

DENSE = DenseSettings(pointers=1, name_heads=((0, 0),))


@pytest.fixture(scope="module")
def spec(new_folder: Path) -> ModelSpec:
    return read_spec(new_folder)


def examples(spec: ModelSpec, dense: DenseSettings = DENSE, **source: object) -> WorldExamples:
    world = WorldSource(clips=400, questions=24, captions=1, **source)
    data = DataSettings(world=world, max_frames=4, share_visuals=True)
    given = (ExampleMaker(spec, data), world, data, spec.config.vision)
    return WorldExamples(*given, dense=dense, tiles_here=True)


def test_pointers_stand_behind_names_and_point_at_what_they_name(spec: ModelSpec):
    made = examples(spec)
    nouns = {noun: tuple(spec.tokenizer.encode(f" {noun}")) for noun in NOUNS}
    num_names = num_answers = 0
    for idx in range(40):
        one = made[idx].example
        scene = compose(split_settings("train"), "train", 0, idx)
        assert one.looks is not None
        bounds = [*one.tails, len(one.ids)]
        for pointer in one.pointers:
            tail = max(start for start in one.tails if start <= pointer.row)
            stop = bounds[bounds.index(tail) + 1]
            if pointer.role != "name":
                num_answers += 1
                # What stands behind it is the first that is learned.
                assert one.labels[pointer.row] == -100 != one.labels[pointer.row + 1]
                assert pointer.row + 1 < stop
                continue
            num_names += 1
            said = spec.tokenizer.decode(one.ids[tail : pointer.row + 1]).split()
            noun = said[-1]
            ids = nouns[noun]
            assert one.ids[pointer.row + 1 - len(ids) : pointer.row + 1] == ids
            (rows,) = pointer.shown
            assert len(set(rows)) == len(rows) > 0
            for row in rows:
                looks = dict(zip(LOOKS, one.looks[row].tolist(), strict=True))
                if noun == "sign":
                    assert looks["has sign"] == 1
                    continue
                assert looks["how many"] >= 1
                if looks["how many"] == 1 and noun in SHAPES and looks["shape"] >= 0:
                    assert SHAPES[looks["shape"]] == noun
                if looks["how many"] == 1 and said[-2] in COLOURS:
                    thing = next(t for t in scene.things if t.shape == noun or noun not in SHAPES)
                    own = {colour for _, colour in thing.colours}
                    assert len(own) > 1 or [*COLOURS][looks["colour"]] == said[-2]
    assert num_names > 200
    assert num_answers > 200


def test_chats_have_trails_alone(spec: ModelSpec):
    one = examples(spec, chat_share=1)[3].example
    assert (one.tails, one.pointers) == ((), ())
    trails = examples(spec, chat_share=1, dense=replace(DENSE, trail_heads=((0, 1),)))[3].example
    assert trails.tails == ()
    assert {own.role for own in trails.pointers} == {"trail"}


def test_where_things_show_is_in_every_frame_they_are_in(spec: ModelSpec):
    made = examples(spec)
    one = made[3].example
    (plan,) = one.plans
    scene = compose(split_settings("train"), "train", 0, 3)
    rows, cols = plan.map_size
    found = rows_shown(scene, plan)
    assert (SIGN in found) == (scene.sign is not None)
    for thing in range(len(scene.things)):
        seen = []
        for frame, time_s in enumerate(plan.times_s):
            (state,) = (one for one in scene.state_at(time_s) if one.thing == thing)
            down, across = state.y / scene.height * rows, state.x / scene.width * cols
            if state.view != "gone" and 0 <= down < rows and 0 <= across < cols:
                at = frame * rows * (cols + 1) + int(down) * (cols + 1) + int(across)
                seen.append((time_s, at))
        assert list(found.get(thing, ())) == seen


def test_trails_lead_back_to_where_a_thing_was_seen_last():
    shown = {
        0: ((0.0, 3), (0.5, 24), (2.0, 84)),  # not seen in between
        1: ((0.5, 24),),  # for the first time
        2: ((1.5, 61), (2.0, 84)),  # shares its last cell
        SIGN: ((0.0, 7), (0.5, 27)),
    }
    assert trails_of(shown) == (
        Pointer(24, "trail", ((3,),)),
        Pointer(84, "trail", ((24,), (61,))),
    )


def test_trails_are_there_where_heads_are_told_of_them(spec: ModelSpec):
    made = examples(spec, dense=replace(DENSE, trail_heads=((0, 1),)))
    one, without = made[3].example, examples(spec)[3].example
    trails = [own for own in one.pointers if own.role == "trail"]
    assert [own for own in one.pointers if own.role != "trail"] == [*without.pointers]
    assert trails
    assert one.looks is not None
    for own in trails:
        assert all(before < own.row for rows in own.shown for before in rows)
        assert one.looks[own.row][0] >= 1


def answered(row: int, rows: tuple[int, ...]) -> list[Pointer]:
    """Return the pointers of an answer about one thing, which is the first and the second too."""
    return [Pointer(row, role, (rows,)) for role in ("answer", "first", "second")]


def test_what_an_answer_is_about():
    scenes = (compose(split_settings("train"), number) for number in range(200))
    scene = next(
        one for one in scenes if len({thing.shape for thing in one.things}) == len(one.things) == 2
    )
    first, second = (thing.shape for thing in scene.things)
    shown, nouns = {0: ((0.0, 4), (0.5, 5)), 1: ((0.5, 9),)}, {(1,), (7, 2)}
    asked = [
        (f"What colour is the {first}?", "red"),
        ("Which object hides?", second),
        (f"Which is first, the {first} or the {second}?", first),
        ("Describe the video.", f"A {first} and a {second}."),
        ("Is there a sign?", "no"),
    ]
    # Each tail: a word, the name's last (of two for the second noun), the turn's end; two answers.
    ids = (0, 1, 3, 50, 51, 0, 7, 2, 3, 50, 51, 1, 1, 3, 50, 0, 0, 3, 50, 1, 3, 50)
    labels = tuple(one if one >= 50 else -100 for one in ids)
    given = (scene, shown, asked, (0, 5, 11, 15, 19), ids, labels)
    found = pointers_of(*given, nouns, at_moments=False)
    assert found == (
        *answered(2, (4, 5)),
        Pointer(1, "name", ((4, 5),)),
        *answered(8, (9,)),
        Pointer(13, "answer", ((4, 5), (9,))),
        Pointer(13, "first", ((4, 5),)),
        Pointer(13, "second", ((9,),)),
        Pointer(11, "name", ((4, 5),)),
        Pointer(12, "name", ((9,),)),
    )
    # Of words that are others than the names nothing is said, but of answers.
    others = pointers_of(*given, {(3,)}, at_moments=False)
    assert all(one.role != "name" for one in others if one.row > 10)


def test_answers_look_at_when_it_matters():
    scenes = (compose(split_settings("train"), number) for number in range(200))
    scene = next(one for one in scenes if len(one.things) == 1 and one.num_frames > one.rate_hz * 4)
    end_s, shape = scene.num_frames / scene.rate_hz, scene.things[0].shape
    shown = {0: ((0.0, 4), (0.5, 5), (3.0, 6), (end_s - 0.5, 7))}
    pairs = [(f"Where is the {shape} now?", "top"), (f"Where is the {shape} at the start?", "top")]
    ids, labels = (1, 50, 1, 50), (-100, 50, -100, 50)
    found = pointers_of(scene, shown, pairs, (0, 2), ids, labels, {(1,)}, at_moments=True)
    assert [one.shown for one in found if one.role == "answer"] == [((7,),), ((4, 5),)]
    # A name is the thing's at any time.
    assert [one.shown for one in found if one.role == "name"] == [((4, 5, 6, 7),)] * 2
    # What is gone by now was last seen then: where to look does not hang on the answer.
    gone = {0: ((0.0, 4), (3.0, 6), (3.5, 8))}
    found = pointers_of(scene, gone, pairs, (0, 2), ids, labels, {(1,)}, at_moments=True)
    assert [one.shown for one in found if one.role == "answer"] == [((6, 8),), ((4,),)]


def test_rows_of_a_caption_look_at_what_the_next_words_tell_of():
    shown = {0: ((0.0, 4), (2.5, 5)), 1: ((0.5, 9),)}
    told = [
        (Telling("Plain."), 2),
        (Telling(" The ring moves.", (0,), ((2.0, 3.0),)), 2),
        (Telling(" It hits the cross.", (0, 1), ((2.0, 3.0),)), 1),
        (Telling(" The circle.", (2,)), 3),  # which never shows in the middle of a cell
        (Telling(" It stops.", (0,), ((7.0, 8.0),)), 1),  # not seen then: where it shows at all
    ]
    assert pointers_of_caption(told, shown, 10) == (
        *answered(11, (5,)),
        *answered(12, (5,)),
        Pointer(13, "answer", ((5,), (9,))),
        Pointer(13, "first", ((5,),)),
        Pointer(13, "second", ((9,),)),
        *answered(17, (4, 5)),
    )


def test_a_caption_that_is_cut_otherwise_than_its_parts_is_refused(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
):
    """Rows behind the first part would look at what another one tells of."""
    made = examples(spec, replace(DENSE, first_heads=((0, 1),), captions=True))
    assert made[0].example.pointers

    def in_halves(witness: Witness, style: CaptionStyle) -> tuple[Telling, ...]:
        text = caption(witness, style)
        return tuple(map(Telling, (text[: len(text) // 2 + 1], text[len(text) // 2 + 1 :])))

    monkeypatch.setattr("llava_video.train.small_world.tellings", in_halves)
    with pytest.raises(ConfigError, match="cuts a whole caption otherwise than its parts"):
        [made[idx] for idx in range(9)]  # a half may end with a word


def test_along_a_caption_a_row_that_says_a_shape_looks_at_it(spec: ModelSpec):
    heads = replace(DENSE, first_heads=((0, 1),))
    made, plain = examples(spec, replace(heads, captions=True)), examples(spec, heads)
    nouns = {shape: tuple(spec.tokenizer.encode(f" {shape}")) for shape in SHAPES}
    num_seen = 0
    for idx in range(30):
        one = made[idx].example
        assert one.looks is not None
        assert {*plain[idx].example.pointers} <= {*one.pointers}
        for pointer in {*one.pointers} - {*plain[idx].example.pointers}:
            assert one.labels[pointer.row + 1] != -100
            next_words = one.ids[pointer.row + 1 :]
            said = [shape for shape, ids in nouns.items() if next_words[: len(ids)] == ids]
            tail = max(start for start in one.tails if start <= pointer.row)
            words = spec.tokenizer.decode(one.ids[tail : pointer.row + 1]).split()
            if pointer.role != "first" or not said or "hits" in words[-4:]:
                continue  # what is hit is the second
            seen = {int(one.looks[row][[*LOOKS].index("shape")]) for row in pointer.shown[0]}
            if len(seen - {-1}) == 1:  # never beside another in its cell
                assert [SHAPES[number] for number in seen - {-1}] == said
                num_seen += 1
    assert num_seen > 100
