"""Pointers of an example become a batch's."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from llava_video.model.spec import ModelSpec, read_spec
from llava_video.train.examples import ExampleMaker
from llava_video.train.forward import Example, pack
from llava_video.train.pointer import Pointer, shifted
from llava_video.train.settings import DataSettings
from llava_video.train.small_world import WorldExamples
from llava_video.train.world_settings import DenseSettings, WorldSource

DENSE = DenseSettings(pointers=1, name_heads=((0, 0),), trail_heads=((0, 0),))


@pytest.fixture(scope="module")
def spec(new_folder: Path) -> ModelSpec:
    return read_spec(new_folder)


def test_in_a_batch_they_stand_and_point_further_on(spec: ModelSpec):
    world = WorldSource(clips=400, questions=24)
    data = DataSettings(world=world, max_frames=4, share_visuals=True)
    given = (ExampleMaker(spec, data), world, data, spec.config.vision)
    made = WorldExamples(*given, dense=DENSE, tiles_here=True)
    ones: list[Example] = [made[idx].example for idx in (0, 1)]
    batch = pack(ones)
    row_ids: list[int] = []
    for one in ones:
        (plan,) = one.plans
        mark = one.ids.index(-200)
        row_ids += [*one.ids[:mark], *([-200] * plan.num_tokens), *one.ids[mark + 1 :]]
    starts = batch["visual_rows"].tolist()
    for one, pointers, start in zip(
        ones, batch["pointers"], (starts[0], starts[ones[0].plans[0].num_tokens]), strict=True
    ):
        for own, moved in itertools.zip_longest(one.pointers, pointers):
            if own.role == "trail":
                assert moved.row == start + own.row
            else:
                assert row_ids[moved.row] == one.ids[own.row]
            assert moved.shown == tuple(tuple(start + row for row in rows) for rows in own.shown)
    assert {own.role for one in ones for own in one.pointers} > {"name", "trail"}
    assert "pointers" not in pack([replace(one, pointers=()) for one in ones])


def test_shifting_is_by_two_amounts():
    own = Pointer(5, "answer", ((0, 2), (7,)))
    assert shifted([own], text=30, visual=4) == [Pointer(35, "answer", ((4, 6), (11,)))]
    # A row of the visual stands where the visual does.
    trail = Pointer(9, "trail", ((2,),))
    assert shifted([trail], text=30, visual=4) == [Pointer(13, "trail", ((6,),))]
