"""What cells and patches are asked, by hand on scenes made by hand."""

from typing import Any

import numpy as np
import pytest
from scene_maker import moving, scene, thing
from seeded_models import video_plan

from llava_video.errors import ConfigError
from llava_video.train.dense_labels import LOOKS, PATCHES, STORY, UNKNOWN, dense_labels
from llava_video.values import Newline
from llava_video.world.scene import Event, Scene, Sign
from llava_video.world.track import Track
from llava_video.world.vocabulary import SIGN_WORDS

KINDS = ("move", "enter", "grow", "shrink", "recolour", "hide", "stop", "collide")
# The numbers of words that the questions' classes count: see world/vocabulary.py.
RED, GREEN, BLUE = 0, 3, 5
SQUARE, RING = 1, 5
RIGHT, DOWN, STILL = 0, 2, 8
NOTHING_BEGAN = 7
LEFT_PLACE, CENTRE, BOTTOM_RIGHT = 3, 4, 8


def labels_of(
    made: Scene, times_s: tuple[float, ...], rows: int = 4, cols: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Return looks and story as (frame, row, column, question); the last column is of newlines."""
    num_tokens = len(times_s) * rows * (cols + 1)
    plan = video_plan(len(times_s), num_tokens, times_s=times_s, map_size=(rows, cols))
    found = dense_labels(made, plan, 8)
    assert found.looks.dtype == found.story.dtype == np.int8
    shape = (len(times_s), rows, cols + 1)
    return found.looks.reshape(*shape, -1), found.story.reshape(*shape, -1)


def did(**known: int) -> list[int]:
    return [known.get(kind, 0) for kind in KINDS]


def test_the_questions_are_of_so_many_classes():
    assert list(LOOKS.values()) == [3, 8, 6, 4, 4, 4, 2, 32, 8, 8]
    assert list(STORY.values()) == [9, 9, 3, 8, 8, *[2] * 8, 25, 9, 5, 5]


def test_two_objects_by_hand():
    # To the right from 0.28 by 0.4 between 1 s and 3 s: 0.48 at 2 s. Cells are 0.25 wide.
    square, move = moving(1.0, 3.0, 0.4, x=0.28, y=0.4, radius=0.12)
    ring = thing("ring", "blue", 0.85, 0.85, 0.09, later=((2.0, "green"),))
    change = Event("recolour", 2.0, 2.0, 1, colour="green")
    made = scene(square, ring, events=(move, change))
    looks, story = labels_of(made, (0.0, 1.0, 2.0, 3.5))

    empty = [0, *[UNKNOWN] * 5, 0, UNKNOWN]
    # Radius 0.12 is above 0.1 and 0.117; 0.28 is 1.12 cells, 0.48 is 1.92, 0.68 is 2.72: the column
    # and the quarter of it. 0.4 is 1.6 cells down: row 1, third quarter. The ring: 3.4, 3.4.
    for frame, (col, across) in enumerate([(1, 0), (1, 0), (1, 3), (2, 2)]):
        ring_colour = BLUE if frame < 2 else GREEN
        expected = np.full((4, 5, 10), UNKNOWN)
        expected[:, :4, :8] = empty
        expected[1, col, :8] = [1, RED, SQUARE, 2, across, 2, 0, UNKNOWN]
        expected[3, 3, :8] = [1, ring_colour, RING, 0, 1, 1, 0, UNKNOWN]
        for row in range(4):  # every cell, and no newline, is asked where it is
            expected[row, :4, 8:] = [[0, row], [1, row], [2, row], [3, row]]
        assert np.array_equal(looks[frame], expected)

    of_square = [
        # The first frame shows no motion; at 1 s the move begins, half a second is not over.
        # On the left, then in the centre; 0.68 is nearer to two thirds than may be asked.
        [UNKNOWN, STILL, 0, RED, NOTHING_BEGAN, *did(), 0, LEFT_PLACE],
        [UNKNOWN, STILL, 0, RED, 0, *did(move=UNKNOWN), 2, LEFT_PLACE],
        # 1.0 s ago: more than 0.5 and not more than 1.0.
        [RIGHT, RIGHT, 0, RED, 1, *did(move=1), 4, CENTRE],
        # 2.5 s ago: more than 0.5, 1, 1.5 and 2; it is over at 3 s.
        [STILL, RIGHT, 0, RED, 4, *did(move=1), 7, UNKNOWN],
    ]
    of_ring = [
        [UNKNOWN, STILL, 0, BLUE, NOTHING_BEGAN, *did(), 0, BOTTOM_RIGHT],
        [STILL, STILL, 0, BLUE, NOTHING_BEGAN, *did(), 2, BOTTOM_RIGHT],
        [UNKNOWN, STILL, 0, BLUE, 0, *did(recolour=UNKNOWN), 4, BOTTOM_RIGHT],
        [STILL, STILL, 0, BLUE, 2, *did(recolour=1), 7, BOTTOM_RIGHT],
    ]
    for frame, col in enumerate((1, 1, 1, 2)):
        expected = np.full((4, 5, 17), UNKNOWN)
        expected[1, col, :15], expected[3, 3, :15] = of_square[frame], of_ring[frame]
        expected[3, 4, 15:] = [2, 2]  # the frame's last newline counts
        assert np.array_equal(story[frame], expected)


def test_a_row_is_asked_for_its_half_second_as_long_as_there_are_classes():
    times_s = (0.0, 3 / 7, 4 / 3, 12.2, 12.3, 40.0)
    _, story = labels_of(scene(thing(x=0.6, y=0.6)), times_s)
    assert story[:, 2, 2, [*STORY].index("half second")].tolist() == [
        0, 1, 3, 24, UNKNOWN, UNKNOWN,
    ]  # fmt: skip


def test_a_wide_frame_is_cut_into_cells_of_its_own_sides():
    # Units are the shorter side: 1.5 of 2 across is three quarters, 0.9 of 1 down.
    made = scene(thing(x=1.55, y=0.85), size_px=(100, 200))
    looks, _ = labels_of(made, (0.0,), rows=2, cols=8)
    # 1.55 / 2 * 8 = 6.2; 0.85 * 2 = 1.7.
    assert np.argwhere(looks[0, :, :8, 0] == 1).tolist() == [[1, 6]]
    assert looks[0, 1, 6].tolist() == [1, RED, SQUARE, 0, 0, 2, 0, UNKNOWN, 6, 1]


def test_of_a_large_map_eight_columns_and_rows_are_told_apart():
    looks, _ = labels_of(scene(thing()), (0.0,), rows=9, cols=10)
    assert looks[0, 0, :, 8].tolist() == [*range(8), *[UNKNOWN] * 3]
    assert looks[0, :, 0, 9].tolist() == [*range(8), UNKNOWN]


def test_what_shows_in_part_has_a_colour_alone_and_is_not_counted():
    path = Track((0.0, 1.0, 3.0, 5.0, 6.0), (-0.3, -0.3, 0.3, 0.3, 1.4))
    comer = thing(x=path, y=0.1)
    events = (
        Event("enter", 1.0, 3.0, 0, "right", "slowly"),
        Event("leave", 5.0, 6.0, 0, "right", "quickly"),
    )
    made = scene(comer, thing("ring", "blue", 0.6, 0.6), events=events)
    looks, story = labels_of(made, (0.0, 2.0, 3.5, 6.5))
    # At 2 s its centre is on the edge: half of it shows.
    assert looks[1, 0, 0].tolist() == [1, RED, UNKNOWN, UNKNOWN, 0, 1, 0, UNKNOWN, 0, 0]
    assert story[1, 0, 0, :15].tolist() == [RIGHT, RIGHT, 0, RED, 1, *did(enter=1), 4, UNKNOWN]
    assert looks[0, :, :4, 0].sum() == looks[3, :, :4, 0].sum() == 1  # the ring's alone
    counts = story[:, 3, 4, 15:].tolist()
    assert counts == [[1, 1], [UNKNOWN, UNKNOWN], [2, 2], [1, 2]]
    assert (story[:, :3, 4] == UNKNOWN).all()
    assert (story[:, 3, 4, :15] == UNKNOWN).all()


def test_objects_of_one_cell_are_only_counted():
    pair = (thing(x=0.55, y=0.55), thing(colour="blue", x=0.7, y=0.7))
    looks, story = labels_of(scene(*pair), (1.0,), rows=2, cols=2)
    assert looks[0, 1, 1].tolist() == [2, *[UNKNOWN] * 5, 0, UNKNOWN, 1, 1]
    assert (story[0, :, :2] == UNKNOWN).all()
    more, _ = labels_of(scene(*pair, thing(x=0.9, y=0.9)), (1.0,), rows=2, cols=2)
    assert more[0, 1, 1, 0] == 2


@pytest.mark.parametrize(("kind", "size"), [("grow", 1), ("shrink", 2)])
def test_a_size_changes_while_it_does(kind: Any, size: int):
    event = Event(kind, 1.0, 3.0, 0)
    radius = Track((1.0, 3.0), (0.09, 0.144) if size == 1 else (0.144, 0.09))
    _, story = labels_of(scene(thing(radius=radius), events=(event,)), (0.5, 1.0, 2.9, 3.0))
    of_it = story[:, 2, 2]
    assert of_it[:, 2].tolist() == [0, size, size, 0]
    assert of_it[:, 5 + KINDS.index(kind)].tolist() == [0, UNKNOWN, 1, 1]


def test_a_hit_is_no_motion_of_its_own_and_ways_follow_one_another():
    # It moves to the right, stops where it hits another, and later goes down.
    path = Track((1.0, 2.0), (0.2, 0.4))
    down = Track((4.0, 6.0), (0.5, 0.8))
    events = (
        Event("move", 1.0, 2.0, 0, "right", "slowly"),
        Event("collide", 2.0, 2.0, 0, "up", other=1),
        Event("move", 4.0, 6.0, 0, "down", "slowly"),
    )
    made = scene(thing(x=path, y=down), thing("ring", "blue", 0.9, 0.1), events=events)
    _, story = labels_of(made, (0.0, 3.0, 4.2, 5.0), rows=2, cols=2)
    ways = [(frame[1, 0, 0], frame[1, 0, 1]) for frame in story]
    # At 4.2 s the new way may not show yet: the last one that surely did counts.
    assert ways == [(UNKNOWN, STILL), (STILL, RIGHT), (UNKNOWN, RIGHT), (DOWN, DOWN)]
    assert [frame[1, 0, 5 + KINDS.index("collide")] for frame in story] == [0, 1, 1, 1]


def test_a_sign_is_read_in_the_cell_of_its_middle():
    # 4 letters of 5 dots and 3 gaps, two dots of edge on each side: 27 x 11 px.
    made = scene(thing("ring", "blue", 0.85, 0.85), sign=Sign("STOP", 50, 5, 1))
    looks, _ = labels_of(made, (0.0,))
    signs = looks[0, :, :4, 6]
    assert np.argwhere(signs == 1).tolist() == [[0, 2]]  # (10.5, 63.5) px
    assert looks[0, 0, 2].tolist() == [0, *[UNKNOWN] * 5, 1, SIGN_WORDS.index("STOP"), 2, 0]
    assert (signs != UNKNOWN).all()


def patches_of(made: Scene, times_s: tuple[float, ...], side: int) -> np.ndarray:
    """Return the labels of patches as (frame, row, column, question)."""
    plan = video_plan(len(times_s), len(times_s) * 20, times_s=times_s, map_size=(4, 4))
    found = dense_labels(made, plan, side).patches
    assert found.dtype == np.int8
    return found.reshape(len(times_s), side, side, len(PATCHES))


def test_a_patch_is_of_the_object_that_comes_near_by_hand():
    # Eight patches of 0.125; the square stands in the middle of (3, 3), 0.9 radii are 0.135. From
    # there to (3, 4) is 0.0625, to (3, 5) 0.1875, to (2, 2) hypot(0.0625, 0.0625) = 0.088. The
    # middle of (3, 4) is 0.125 to the right, more than half a radius: part 5 of 0..8.
    square = thing("square", "red", 0.4375, 0.4375, 0.15)
    patches = patches_of(scene(square), (0.0,), 8)[0]
    covered = np.argwhere(patches[..., 0] == 1).tolist()
    expected = [[row, col] for row in range(2, 5) for col in range(2, 5)]
    assert covered == expected
    assert patches[3, 3].tolist() == [1, RED, SQUARE, 4]
    assert patches[2, 2].tolist() == [1, RED, SQUARE, 0]
    assert patches[3, 4].tolist() == [1, RED, SQUARE, 5]
    assert patches[0, 0].tolist() == [0, UNKNOWN, UNKNOWN, UNKNOWN]


def test_between_two_objects_a_patch_is_of_the_nearer_and_what_shows_in_part_has_no_shape():
    red = thing("square", "red", 0.3, 0.5, 0.2)
    blue = thing("ring", "blue", 0.7, 0.5, 0.2)
    patches = patches_of(scene(red, blue), (0.0,), 8)[0]
    assert patches[4, :4, 1].tolist() == [RED] * 4
    assert patches[4, 4:, 1].tolist() == [BLUE] * 4
    outside = patches_of(scene(thing("ring", "blue", 0.0, 0.5, 0.2)), (0.0,), 8)[0]
    assert outside[4, 0].tolist() == [1, BLUE, UNKNOWN, 4]


def test_patches_of_a_wide_frame_are_wide():
    # 0.09 of a radius; patches are 0.25 wide and 0.125 high.
    patches = patches_of(
        scene(thing(x=1.625, y=0.4375, radius=0.09), size_px=(100, 200)), (0.0,), 8
    )
    found = np.argwhere(patches[0, ..., 0] == 1).tolist()
    assert found == [[2, 6], [3, 6], [4, 6]]


@pytest.mark.parametrize("newline", [Newline.FRAME, Newline.CLIP, Newline.NONE])
def test_rows_that_are_no_cells_are_refused(newline: Newline):
    num_tokens = {Newline.FRAME: 2 * 17, Newline.CLIP: 33, Newline.NONE: 32}[newline]
    with pytest.raises(ConfigError, match=f"newline = {newline.value}"):
        dense_labels(scene(), video_plan(2, num_tokens, newline=newline), 8)
