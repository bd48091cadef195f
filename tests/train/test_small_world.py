"""Clips by number: as the maker writes them, the same anywhere, new ones in every epoch; a stage of
them leaves a plain checkpoint and goes on bit for bit."""

import itertools
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.utils.data import DataLoader
from training_runs import broken_off, train_in_two

from llava_video.config import from_mapping, read_yaml, to_mapping
from llava_video.errors import CheckpointError, ConfigError, ExampleError
from llava_video.model.checkpoint import load_model
from llava_video.model.model_config import read_model_config
from llava_video.model.prompt import Turn
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.ops.tile_frames import tile_frames
from llava_video.train import run
from llava_video.train.batches import Made, collate
from llava_video.train.dense_labels import LOOKS, STORY, dense_labels
from llava_video.train.examples import ExampleMaker
from llava_video.train.forward import Example
from llava_video.train.raw_frames import as_if_encoded
from llava_video.train.run import Trained, check_stage, train, with_model
from llava_video.train.settings import DataSettings, NewModel, StageSettings
from llava_video.train.small_world import WorldExamples
from llava_video.train.world_settings import DenseSettings, WorldSource
from llava_video.values import Newline
from llava_video.world.composer import compose
from llava_video.world.example import make_example, questions_of
from llava_video.world.render import render
from llava_video.world.settings import WorldSettings
from llava_video.world.splits import split_settings
from llava_video.world.witness import Witness

MARK = -200


@pytest.fixture(scope="module")
def spec(new_folder: Path) -> ModelSpec:
    return read_spec(new_folder)


def data(**source: Any) -> DataSettings:
    return DataSettings(world=WorldSource(clips=4, **source), max_frames=4, share_visuals=True)


def examples(
    spec: ModelSpec, *, is_dense: bool = True, tiles_here: bool = True, **source: Any
) -> WorldExamples:
    return examples_of(spec, data(**source), is_dense=is_dense, tiles_here=tiles_here)


def examples_of(
    spec: ModelSpec, settings: DataSettings, *, is_dense: bool = False, tiles_here: bool = True
) -> WorldExamples:
    assert settings.world is not None
    given = (ExampleMaker(spec, settings), settings.world, settings, spec.config.vision)
    dense = DenseSettings() if is_dense else None
    return WorldExamples(*given, dense=dense, tiles_here=tiles_here)


def said(spec: ModelSpec, one: Example) -> list[tuple[str, str]]:
    """Read the questions and answers back from an example's tails."""
    bounds = [*one.tails, len(one.ids)]
    texts = [spec.tokenizer.decode(one.ids[low:high]) for low, high in itertools.pairwise(bounds)]
    pairs = [text.partition("\nassistant\n") for text in texts]
    assert all(middle for _, middle, _ in pairs)
    return [(question, answer) for question, _, answer in pairs]


def turns_of(pairs: list[tuple[str, str]]) -> list[Turn]:
    turns = [Turn(role, text) for pair in pairs for role, text in zip(
        ("user", "assistant"), pair, strict=True)]  # fmt: skip
    return [replace(turns[0], text=f"<image>\n{turns[0].text}"), *turns[1:]]


def assert_same(one: Made, other: Made) -> None:
    first, second = one.example, other.example
    for name in ("ids", "labels", "tails", "plans"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("tiles", "looks", "story", "patches"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_what_is_put_together_is_what_the_maker_writes_whole(spec: ModelSpec):
    made = examples(spec)
    maker = ExampleMaker(spec, data())
    lengths = set()
    for idx in range(12):
        one = made[idx].example
        pairs = said(spec, one)
        whole = maker.written(turns_of(pairs), one.plans)
        assert (one.ids, one.labels, one.tails) == (whole.ids, whole.labels, whole.tails)
        lengths.add(len(one.ids))
    assert len(lengths) > 6
    # In turn they would be other ids.
    assert maker.written(turns_of(pairs), one.plans, shares=False).ids != one.ids


def test_clips_and_their_truth_are_the_worlds(spec: ModelSpec):
    made = examples(spec, captions=3)
    for idx in range(6):
        one = made[idx].example
        (plan,) = one.plans
        clip = make_example(split_settings("train"), "train", 0, idx)
        scene = clip.scene
        assert (plan.height_px, plan.width_px) == (scene.height_px, scene.width_px)
        assert plan.num_frames == 4
        told = {text for _, text in said(spec, one)}
        asked = {(question.text, question.answer) for question in clip.questions}
        assert set(clip.captions.values()) <= told
        assert len(set(said(spec, one)) & asked) == min(12, len(asked))
        assert len(one.tails) == min(12, len(asked)) + 3
        labels = dense_labels(scene, plan, spec.config.vision.patches_per_side)
        assert np.array_equal(one.looks, labels.looks)
        assert np.array_equal(one.story, labels.story)
        assert np.array_equal(one.patches, labels.patches)
        assert one.looks.shape == (plan.num_tokens, len(LOOKS))
        assert one.story.shape == (plan.num_tokens, len(STORY))


def test_frames_are_those_of_the_plan_and_tiled_here_or_there(spec: ModelSpec):
    here, there = examples(spec), examples(spec, tiles_here=False)
    vision, kinds = spec.config.vision, set()
    for idx in range(8):
        one, other = here[idx].example, there[idx].example
        (plan,) = one.plans
        filmed = other.filmed
        assert one.filmed is None
        assert filmed is not None
        assert len(other.tiles) == 0
        whole = render(compose(split_settings("train"), "train", 0, idx))
        assert np.array_equal(filmed.frames, whole[list(plan.frame_idxs)])
        seen = as_if_encoded(filmed.frames, torch.full((4,), filmed.step))
        how = (plan.fit, plan.grid, 56, vision.pixel_mean, vision.pixel_std)
        assert torch.equal(one.tiles, tile_frames(seen, *how))
        kinds.add(filmed.step > 0)
    assert kinds == {True, False}  # a fifth of them never was in a file
    made = [examples(spec, tiles_here=False, plain_share=share)[1] for share in (0, 1)]
    assert [one.example.filmed.step > 0 for one in made if one.example.filmed] == [True, False]


def test_a_clip_depends_on_its_number_alone(spec: ModelSpec):
    made = examples(spec)
    forwards = [made[idx] for idx in range(5)]
    other = examples(spec)
    for idx in (4, 0, 3, 3, 1):
        assert_same(other[idx], forwards[idx])
    assert_same(pickle.loads(pickle.dumps(made))[2], forwards[2])
    workers = DataLoader(examples(spec), batch_size=None, num_workers=2, sampler=range(3))
    for found, wanted in zip(workers, forwards, strict=False):
        assert_same(found, wanted)
    ids = {one.example.ids for one in forwards}
    assert len(ids) == 5
    assert examples(spec, seed=1)[0].example.ids not in ids


def test_long_clips_are_passed_over_or_the_end(spec: ModelSpec):
    lengths = [made.example.num_rows for made in map(examples(spec).__getitem__, range(8))]
    most = sorted(lengths)[4]
    short = replace(data(), max_tokens=most)
    first = next(idx for idx, num in enumerate(lengths[:-1]) if num > most)
    good = next(idx for idx in range(first, 8) if lengths[idx] <= most)
    made = examples_of(spec, short)[first]
    assert made.broken == ("too long",) * (good - first)
    assert made.example.ids == examples(spec)[good].example.ids
    with pytest.raises(ExampleError, match=f"max_tokens is {most}"):
        examples_of(spec, replace(short, too_long="error"))[first]


def test_cells_of_another_layout_are_refused_at_once(spec: ModelSpec):
    made = replace(data(), newline=Newline.FRAME)
    assert examples_of(spec, made)[0].broken == ()
    with pytest.raises(ConfigError, match="newline = frame"):
        examples_of(spec, made, is_dense=True)


def test_epochs_go_on_with_new_clips(spec: ModelSpec):
    made = examples(spec)
    order = made.order(2, 0)
    assert len(order) == len(made) == 4
    assert list(order) == [0, 1, 2, 3]
    order.set_epoch(2)
    assert list(order) == [8, 9, 10, 11]


def test_the_first_clips_have_few_objects(spec: ModelSpec):
    many = WorldSettings(min_objects=1, max_objects=4)

    def num_objects(idx: int, growing: int) -> int:
        made = examples(spec, is_dense=True, settings=many, growing=growing)[idx].example
        assert made.looks is not None
        # No frame shows more than the clip has; of one object, no cell shows two.
        (plan,) = made.plans
        counts = made.looks[:, 0].reshape(plan.num_frames, -1)
        return int(torch.where(counts > 0, counts, 0).sum(dim=1).max())

    first = [num_objects(idx, 1000) for idx in range(12)]
    assert max(first) == 1
    assert max(num_objects(idx, 0) for idx in range(12)) > 1
    # The last of the growing ones may have all four.
    later = examples(spec, settings=many, growing=8)
    assert later[7].example.ids == examples(spec, settings=many)[7].example.ids


def test_chats_and_silent_clips(spec: ModelSpec):
    (one,) = [made.example for made in [examples(spec, chat_share=1, captions=0)[0]]]
    assert one.tails == ()
    text = spec.tokenizer.decode([id_ for id_ in one.ids if id_ != MARK])
    clip = make_example(split_settings("train"), "train", 0, 0)
    asked = [(question.text, question.answer) for question in clip.questions[:12]]
    whole = ExampleMaker(spec, data()).written(turns_of(asked), one.plans, shares=False)
    assert (one.ids, one.labels) == (whole.ids, whole.labels)
    assert text.count("\nassistant\n") == len(asked) > 1
    assert len(said(spec, examples(spec, questions=0, captions=0)[0].example)) == 1


Stage = Callable[..., StageSettings]


@pytest.fixture
def stage(tmp_path: Path, new_folder: Path) -> Stage:
    """Return a maker of stages: four clips an epoch, two a batch."""

    def made(**changes: Any) -> StageSettings:
        values: dict[str, Any] = {
            "model": str(new_folder),
            "output": str(tmp_path / "run"),
            "learn": ["vision_tower", "projector", "learned_tokens", "language_model"],
            "dense": {
                "looks": 0.5,
                "story": 1,
                "answers": 1,
                "pointers": 0.5,
                "name_heads": [[0, 0]],
                "answer_heads": [[1, 1]],
            },
            "learning_rate": 1e-3,
            "batch_size": 2,
            "epochs": 2,
            "save_every": 1,
            "log_every": 1,
            **changes,
        }
        world = {"clips": 4, "questions": 3, **values.pop("world", {})}
        own = {"world": world, "max_frames": 3, "share_visuals": True, "num_workers": 0}
        return from_mapping(StageSettings, {**values, "data": own})

    return made


def weights(done: Trained) -> dict[str, torch.Tensor]:
    folder = done.folders["original"]
    return dict(load_model(folder, config=read_model_config(folder)).named_parameters())


def metrics(stage: StageSettings) -> list[dict[str, Any]]:
    lines = (Path(stage.output) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_stage_of_a_new_model_leaves_a_plain_checkpoint(stage: Stage, new_model: NewModel):
    settings = stage(model="", new=to_mapping(new_model), max_steps=2, dtype="bfloat16")
    done = train(settings)
    assert done.num_steps == 2
    for line in metrics(settings):
        counts = {"looks": 0.5, "story": 1, "answers": 1, "pointers": 0.5}
        parts = [count * line[f"loss_{name}"] for name, count in counts.items()]
        assert line["loss"] == pytest.approx(sum(parts), abs=1e-3)
    folder = done.folders["original"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = list(file.keys())
        assert {file.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    with safe_open(Path(settings.output) / "new" / "model.safetensors", "pt") as file:
        assert sorted(file.keys()) == sorted(names)  # nothing of the readers
    before = Path(settings.output) / "new"
    old = load_model(before, config=read_model_config(before)).state_dict()
    moved = {
        name.partition(".")[0]
        for name, tensor in weights(done).items()
        if not torch.equal(tensor.float(), old[name].bfloat16().float())
    }
    assert moved == {"vision_tower", "projector", "image_newline", "language_model"}
    # The folder says what was asked for, and is done.
    assert read_yaml(StageSettings, Path(settings.output) / "stage.yaml") == settings
    with pytest.raises(ConfigError, match="whole result"):
        train(settings)


@pytest.mark.parametrize("num_calls", [2, 3])
def test_a_broken_stage_goes_on_bit_for_bit(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_calls: int
):

    seen: list[int] = []
    drawn = WorldExamples.__getitem__
    monkeypatch.setattr(
        WorldExamples, "__getitem__", lambda self, idx: seen.append(idx) or drawn(self, idx)
    )
    whole = train(stage(output=str(tmp_path / "whole")))
    assert whole.num_steps == 4
    assert seen == list(range(8))  # the second epoch has other clips
    settings = stage(output=str(tmp_path / "broken"))
    broken_off(settings, monkeypatch, num_calls)
    done = train(settings)
    assert (done.num_steps, done.resumed_from) == (4, num_calls)
    assert all(torch.equal(one, weights(done)[name]) for name, one in weights(whole).items())
    losses = [line["loss"] for line in metrics(settings)]
    assert losses == [line["loss"] for line in metrics(stage(output=str(tmp_path / "whole")))]
    assert len(set(losses)) == 4


def test_dropped_parts_of_the_loss_are_not_computed(stage: Stage):
    settings = stage(dense={"looks": 1, "story": 0, "answers": 0}, max_steps=1)
    done = train(settings)
    (line,) = metrics(settings)
    assert {name for name in line if name.startswith("loss_")} == {"loss_looks"}
    assert done.loss == pytest.approx(line["loss_looks"], abs=1e-4)


def test_batches_hold_frames_where_a_gpu_tiles_them(spec: ModelSpec):
    made = examples(spec, tiles_here=False)
    batch = collate([made[idx] for idx in range(3)])
    num_frames = sum(map(len, batch["frames"]["groups"]))
    assert num_frames == sum(plan.num_frames for plan in batch["plans"]) == 12
    places = torch.cat(batch["frames"]["places"])
    assert sorted(places.tolist()) == list(range(12))


def test_processes_that_begin_at_once_make_one_model(
    stage: Stage, new_model: NewModel, monkeypatch: pytest.MonkeyPatch
):
    made = replace(stage(), model="", new=new_model)
    write = run.write_new_model

    def second(folder: Path, *given: Any) -> Path:
        write(folder, *given)  # another process's, which was there first
        return write(folder, *given)

    monkeypatch.setattr(run, "write_new_model", second)
    found = with_model(made)
    assert found == replace(made, model=str(Path(made.output) / "new"), new=None)
    assert (Path(found.model) / "config.json").is_file()
    # Where nobody wrote it, the error stands.
    monkeypatch.setattr(run, "write_new_model", write)
    (Path(made.output) / "new").rename(Path(made.output) / "old")
    monkeypatch.setattr(run, "world_texts", lambda num: (_ for _ in ()).throw(CheckpointError("x")))
    with pytest.raises(CheckpointError, match="x"):
        with_model(made)


@pytest.mark.slow
def test_two_processes_learn_of_the_small_world_what_one_does(
    stage: Stage, tmp_path: Path, new_model: NewModel
):
    values = {"model": "", "new": to_mapping(new_model), "max_steps": 3}
    train(stage(output=str(tmp_path / "one"), **values))
    settings = stage(output=str(tmp_path / "two"), batch_size=1, **values)
    train_in_two(settings, tmp_path)
    losses = [
        [line["loss"] for line in metrics(stage(output=str(tmp_path / name)))]
        for name in ("one", "two")
    ]
    # What cells teach is a mean over each process's own cells, so it is another one, but no sum.
    assert [len(own) for own in losses] == [3, 3]
    assert np.allclose(*losses, rtol=0.05)


def test_there_is_no_file_to_check(stage: Stage):
    with pytest.raises(ConfigError, match="no file to check"):
        check_stage(stage())


@pytest.mark.parametrize("rounds", [1, 2])
def test_of_what_is_asked_seldom_one_question_in_eight_is(spec: ModelSpec, rounds: int):
    kinds, train, num_seldom, num_some = ("count", "shape"), split_settings("train"), 0, 0
    made = examples(spec, is_dense=False, captions=0, questions=99, seldom=kinds, rounds=rounds)
    for idx in range(40):
        seen = Witness(compose(train, "train", 0, idx), train)
        every = {q for at in range(rounds) for q in questions_of(seen, train, at)}
        often, seldom = ({(q.text, q.answer) for q in every if (q.kind in kinds) is is_seldom}
                         for is_seldom in (False, True))  # fmt: skip
        pairs = said(spec, made[idx].example)
        assert often <= {*pairs} <= often | seldom
        assert len({*pairs}) == len(pairs)  # what is drawn twice is asked once
        num_seldom += len(pairs) - len(often)
        num_some += 0 < len(pairs) - len(often) < len(seldom)
    assert 2 * rounds <= num_seldom <= 24 * rounds
    assert num_some > 2 * rounds  # each for itself: of one clip some are asked and others not
