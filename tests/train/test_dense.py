"""What cells are asked, by hand on scenes made by hand, and the losses, by another formula."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scene_maker import moving, scene, thing
from seeded_models import video_plan

from llava_video.errors import ConfigError
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.train.dense import (
    LOOKS,
    STORY,
    UNKNOWN,
    DenseTraining,
    dense_labels,
)
from llava_video.train.forward import Batch, Example, TrainingModel, pack
from llava_video.train.world_settings import DenseSettings
from llava_video.values import Newline, VisualPlan
from llava_video.world.scene import Event, Scene, Sign
from llava_video.world.track import Track
from llava_video.world.vocabulary import SIGN_WORDS

KINDS = ("move", "enter", "grow", "shrink", "recolour", "hide", "stop", "collide")
# The numbers of words that the questions' classes count: see world/vocabulary.py.
RED, GREEN, BLUE = 0, 3, 5
SQUARE, RING = 1, 5
RIGHT, DOWN, STILL = 0, 2, 8
NOTHING_BEGAN = 7


def labels_of(
    made: Scene, times_s: tuple[float, ...], rows: int = 4, cols: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Return looks and story as (frame, row, column, question); the last column is of newlines."""
    num_tokens = len(times_s) * rows * (cols + 1)
    plan = video_plan(len(times_s), num_tokens, times_s=times_s, map_size=(rows, cols))
    found = dense_labels(made, plan)
    assert found.looks.dtype == found.story.dtype == np.int8
    shape = (len(times_s), rows, cols + 1)
    return found.looks.reshape(*shape, -1), found.story.reshape(*shape, -1)


def did(**known: int) -> list[int]:
    return [known.get(kind, 0) for kind in KINDS]


def test_the_questions_are_of_so_many_classes():
    assert list(LOOKS.values()) == [3, 8, 6, 4, 4, 4, 2, 32]
    assert list(STORY.values()) == [9, 9, 3, 8, 8, *[2] * 8, 5, 5]


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
        expected = np.full((4, 5, 8), UNKNOWN)
        expected[:, :4] = empty
        expected[1, col] = [1, RED, SQUARE, 2, across, 2, 0, UNKNOWN]
        expected[3, 3] = [1, ring_colour, RING, 0, 1, 1, 0, UNKNOWN]
        assert np.array_equal(looks[frame], expected)

    of_square = [
        # The first frame shows no motion; at 1 s the move begins, half a second is not over.
        [UNKNOWN, STILL, 0, RED, NOTHING_BEGAN, *did()],
        [UNKNOWN, STILL, 0, RED, 0, *did(move=UNKNOWN)],
        # 1.0 s ago: more than 0.5 and not more than 1.0.
        [RIGHT, RIGHT, 0, RED, 1, *did(move=1)],
        # 2.5 s ago: more than 0.5, 1, 1.5 and 2; it is over at 3 s.
        [STILL, RIGHT, 0, RED, 4, *did(move=1)],
    ]
    of_ring = [
        [UNKNOWN, STILL, 0, BLUE, NOTHING_BEGAN, *did()],
        [STILL, STILL, 0, BLUE, NOTHING_BEGAN, *did()],
        [UNKNOWN, STILL, 0, BLUE, 0, *did(recolour=UNKNOWN)],
        [STILL, STILL, 0, BLUE, 2, *did(recolour=1)],
    ]
    for frame, col in enumerate((1, 1, 1, 2)):
        expected = np.full((4, 5, 15), UNKNOWN)
        expected[1, col, :13], expected[3, 3, :13] = of_square[frame], of_ring[frame]
        expected[3, 4, 13:] = [2, 2]  # the frame's last newline counts
        assert np.array_equal(story[frame], expected)


def test_a_wide_frame_is_cut_into_cells_of_its_own_sides():
    # Units are the shorter side: 1.5 of 2 across is three quarters, 0.9 of 1 down.
    made = scene(thing(x=1.55, y=0.85), size_px=(100, 200))
    looks, _ = labels_of(made, (0.0,), rows=2, cols=8)
    # 1.55 / 2 * 8 = 6.2; 0.85 * 2 = 1.7.
    assert np.argwhere(looks[0, :, :8, 0] == 1).tolist() == [[1, 6]]
    assert looks[0, 1, 6].tolist() == [1, RED, SQUARE, 0, 0, 2, 0, UNKNOWN]


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
    assert looks[1, 0, 0].tolist() == [1, RED, UNKNOWN, UNKNOWN, 0, 1, 0, UNKNOWN]
    assert story[1, 0, 0, :13].tolist() == [RIGHT, RIGHT, 0, RED, 1, *did(enter=1)]
    assert looks[0, :, :4, 0].sum() == looks[3, :, :4, 0].sum() == 1  # the ring's alone
    counts = story[:, 3, 4, 13:].tolist()
    assert counts == [[1, 1], [UNKNOWN, UNKNOWN], [2, 2], [1, 2]]
    assert (story[:, :3, 4] == UNKNOWN).all()
    assert (story[:, 3, 4, :13] == UNKNOWN).all()


def test_objects_of_one_cell_are_only_counted():
    pair = (thing(x=0.55, y=0.55), thing(colour="blue", x=0.7, y=0.7))
    looks, story = labels_of(scene(*pair), (1.0,), rows=2, cols=2)
    assert looks[0, 1, 1].tolist() == [2, *[UNKNOWN] * 5, 0, UNKNOWN]
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
    assert looks[0, 0, 2].tolist() == [0, *[UNKNOWN] * 5, 1, SIGN_WORDS.index("STOP")]
    assert (signs != UNKNOWN).all()


PLAN = video_plan(2, 12, crop=(0, 4, 0, 4), map_size=(2, 2))


def loaded(folder: Path) -> LlavaModel:
    return load_model(folder, config=read_model_config(folder), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> LlavaModel:
    return loaded(tiny_folder)


def drawn(seed: int, plan: VisualPlan = PLAN) -> Example:
    """Make an example of a clip with labels, two in three of them unknown."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, 250, 5 + seed).tolist()
    cells = {}
    for name, questions in (("looks", LOOKS), ("story", STORY)):
        columns = [draw.integers(0, num, plan.num_tokens) for num in questions.values()]
        own = np.stack(columns, axis=1)
        own[draw.random(own.shape) < 2 / 3] = UNKNOWN
        own[:, 3] = UNKNOWN  # one that nobody is asked
        cells[name] = torch.from_numpy(own.astype(np.int8))
    tiles = torch.from_numpy(draw.standard_normal((2, 3, 56, 56), dtype=np.float32))
    shown = {"plans": (plan,), "tiles": tiles}
    return Example(ids=(*ids[:2], -200, *ids[2:]), labels=(-100, -100, -100, *ids[2:]),
                   **shown, **cells)  # fmt: skip


@pytest.fixture(scope="module")
def batch() -> Batch:
    return pack([drawn(0), drawn(3)])


def learner(model: LlavaModel, **counts: float) -> DenseTraining:
    torch.manual_seed(0)
    return DenseTraining(model, DenseSettings(**{"looks": 0, "story": 0, "answers": 0} | counts))


def mean_of(logits: np.ndarray, labels: np.ndarray, questions: dict[str, int]) -> np.ndarray:
    """Return each question's mean of -log softmax over the rows that are asked; 0 for none."""
    found, start = [], 0
    for idx, num in enumerate(questions.values()):
        part = logits[:, start : start + num]
        odds = part - np.log(np.exp(part).sum(axis=1, keepdims=True))
        own = [-odds[row, label] for row, label in enumerate(labels[:, idx]) if label >= 0]
        found.append(sum(own) / len(own) if own else 0.0)
        start += num
    return np.array(found)


def mean_as_they_count(losses: np.ndarray, questions: dict[str, int]) -> float:
    """Return the mean in which shape counts three times, and where it goes and went twice."""
    counts = [{"shape": 3, "goes": 2, "went": 2}.get(name, 1) for name in questions]
    return float(np.average(losses, weights=counts))


def test_visual_rows_are_where_the_visuals_stand(tiny: LlavaModel, batch: Batch):
    net = learner(tiny, looks=1)
    # Two ids, 12 rows; three more ids, and the second example's two.
    assert batch["visual_rows"].tolist() == [*range(2, 14), *range(19, 31)]
    with torch.no_grad():
        visuals = net.visuals(batch["plans"], batch["tiles"])
        rows = net.spliced(batch["ids"], visuals)
    assert torch.equal(rows[batch["visual_rows"]], torch.cat(visuals))


def test_the_losses_are_the_formula(tiny: LlavaModel, batch: Batch):
    net = learner(tiny, looks=0.5, story=2, answers=3)
    with torch.no_grad():
        loss = net(**batch)["loss"].item()
        visuals = net.visuals(batch["plans"], batch["tiles"])
        hidden = net.hidden_rows(net.spliced(batch["ids"], visuals), batch["shares"])
        looks = net.looks(torch.cat(visuals)).double().numpy()
        story = net.story(hidden[batch["visual_rows"]]).double().numpy()
        late = net.story(hidden[batch["visual_rows"] + 1]).double().numpy()
        plain = {key: batch[key] for key in ("ids", "labels", "tiles", "plans", "shares")}
        answers = TrainingModel(tiny)(**plain)["loss"].item()
    labels = {name: batch[name].numpy() for name in ("looks", "story")}
    each_story = mean_of(story, labels["story"], STORY)
    of_looks = mean_as_they_count(mean_of(looks, labels["looks"], LOOKS), LOOKS)
    of_story = mean_as_they_count(each_story, STORY)
    assert net.parts["looks"].item() == pytest.approx(of_looks, abs=1e-5)
    assert net.parts["story"].item() == pytest.approx(of_story, abs=1e-5)
    assert net.parts["answers"].item() == pytest.approx(answers, abs=1e-6)
    assert loss == pytest.approx(0.5 * of_looks + 2 * of_story + 3 * answers, abs=1e-4)
    asked_as_0 = np.where(labels["story"] < 0, 0, labels["story"])
    num_asked = (labels["story"] >= 0).sum(axis=0)
    for wrong in (
        mean_as_they_count(mean_of(late, labels["story"], STORY), STORY),  # of the row behind
        mean_as_they_count(mean_of(story, asked_as_0, STORY), STORY),  # unknown is no class
        (each_story * num_asked).sum() / num_asked.sum(),  # over all that is asked at once
        each_story[num_asked > 0].mean(),
        (each_story * num_asked / len(story)).mean(),  # over all rows
        each_story.mean(),  # all alike
    ):
        assert abs(net.parts["story"].item() - wrong) > 1e-2


def test_a_step_is_a_mean_however_it_is_cut(tiny: LlavaModel):
    net = learner(tiny, looks=1, story=1)
    batches = [pack([drawn(0)]), pack([drawn(3)])]
    with torch.no_grad():
        apart = [net(**batch)["loss"] for batch in batches]
        # Three learned tokens and six, of nine.
        cut = [net(**batch, num_items_in_batch=torch.tensor(9))["loss"] for batch in batches]
        whole = net(**batches[0], num_items_in_batch=3)["loss"]
    assert (cut[0] + cut[1]).item() == pytest.approx((apart[0] + 2 * apart[1]).item() / 3, abs=1e-5)
    assert torch.equal(whole, apart[0])


def test_where_only_looks_count_the_decoder_is_not_run(
    tiny: LlavaModel, batch: Batch, monkeypatch: pytest.MonkeyPatch
):
    net = learner(tiny, looks=1)
    monkeypatch.setattr(net, "hidden_rows", None)
    tiny.requires_grad_(True)
    net(**batch)["loss"].backward()
    reached = {name.partition(".")[0] for name, p in tiny.named_parameters() if p.grad is not None}
    assert reached == {"vision_tower", "projector", "image_newline"}
    assert net.looks.weight.grad is not None
    assert net.story.weight.grad is None
    tiny.zero_grad()
    assert set(net.parts) == {"looks"}


@pytest.mark.parametrize("newline", [Newline.FRAME, Newline.CLIP, Newline.NONE])
def test_rows_that_are_no_cells_are_refused(newline: Newline):
    num_tokens = {Newline.FRAME: 2 * 17, Newline.CLIP: 33, Newline.NONE: 32}[newline]
    with pytest.raises(ConfigError, match=f"newline = {newline.value}"):
        dense_labels(scene(), video_plan(2, num_tokens, newline=newline))


def test_labels_stay_with_their_example():
    first, second = drawn(1), drawn(2)
    without = replace(first, looks=None, story=None)
    made = pack([without, second])
    assert torch.equal(made["looks"], second.looks)
    # Before its visual stand all rows of the first, and two ids of its own.
    assert made["visual_rows"][0] == without.num_rows + 2
    assert "looks" not in pack([without])
