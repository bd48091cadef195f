"""Records become examples: planned as requests are, labelled, never cut; what breaks is named."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from seeded_models import noise_frames

from llava_video.errors import ConfigError, ExampleError
from llava_video.inputs import Video
from llava_video.model.dimensions import FusionConfig
from llava_video.model.labels import label_conversation
from llava_video.model.prompt import Turn
from llava_video.model.spec import ModelSpec
from llava_video.ops.tile_frames import normalised
from llava_video.ops.tiles import frame_tiles
from llava_video.preview import plan_video
from llava_video.train.examples import ExampleMaker
from llava_video.train.mixture import Record
from llava_video.train.settings import DataSettings
from llava_video.video import decoder
from llava_video.video.probe import probe

MARK = -200


def record(folder: Path, *texts: str, **media: Any) -> Record:
    said = [{"from": ("human", "gpt")[idx % 2], "value": one} for idx, one in enumerate(texts)]
    return Record(name="one", values={"conversations": said, **media}, folder=str(folder))


def maker(spec: ModelSpec, **changes: Any) -> ExampleMaker:
    return ExampleMaker(spec, DataSettings(**changes))


def test_a_video_is_what_a_request_plans(tiny_spec: ModelSpec, media: Path):
    made = maker(tiny_spec, max_frames=5).example(
        record(media, "<image>\nWhat?", "Bars.", video="clip.mp4")
    )
    plan = plan_video(Video(media / "clip.mp4"), "What?", model=tiny_spec.name, max_frames=5)
    (own,) = made.plans
    assert own == plan.visuals[0]
    assert made.tiles.shape == (5, 3, 56, 56)
    # The prompt of the request, the answer and its end.
    (before, _, after) = tiny_spec.tokenizer.encode_prompt(plan.prompt)
    answer = tiny_spec.tokenizer.encode("Bars.<|im_end|>")
    assert list(made.ids) == [*before, MARK, *after, *answer]
    assert made.labels == (*[-100] * (len(made.ids) - len(answer)), *answer)
    assert made.num_rows == len(made.ids) - 1 + own.num_tokens


def test_frames_are_never_fewer_because_an_example_is_long(tiny_spec: ModelSpec, media: Path):
    short = dataclasses.replace(
        tiny_spec, geometry=dataclasses.replace(tiny_spec.geometry, context_tokens=64)
    )
    one = record(media, "<image>\nWhat?", "Bars.", video="clip.mp4")
    assert maker(short, max_frames=30).example(one).plans[0].num_frames == 30
    measure = maker(short, max_frames=30).measure(one)
    limit = measure.num_tokens
    assert maker(short, max_frames=30, max_tokens=limit).measure(one) == measure
    with pytest.raises(ExampleError, match=f"{limit} tokens") as caught:
        maker(short, max_frames=30, max_tokens=limit - 1).example(one)
    assert caught.value.kind == "too long"


def test_a_video_is_probed_once(tiny_spec: ModelSpec, media: Path, monkeypatch: pytest.MonkeyPatch):
    one = record(media, "<image>\nWhat?", "Bars.", video="clip.mp4")
    making, probed = maker(tiny_spec, max_frames=5), []
    monkeypatch.setattr(decoder, "probe", lambda source: probed.append(source) or probe(source))
    first, again = making.example(one), making.example(one)
    assert len(probed) == 1
    assert first.plans == again.plans
    assert torch.equal(first.tiles, again.tiles)
    assert first.tiles.dtype is torch.uint8


def test_a_folder_of_frames_is_a_video(tiny_spec: ModelSpec, tmp_path: Path):
    frames = noise_frames(12)
    (tmp_path / "walk").mkdir()
    for idx, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "walk" / f"{idx}.png")
    texts = ("<video>\nWhat?", "Noise.")
    made = maker(tiny_spec, max_frames=4).example(record(tmp_path, *texts, video="walk"))
    plan = made.plans[0]
    assert plan.kind == "video"
    # Six seconds of two frames; a record's own rate makes other times of the same frames.
    assert plan.times_s == tuple(idx / 2 for idx in plan.frame_idxs)
    mean, std = ((0.5, 0.5, 0.5),) * 2
    for idx, levels in zip(plan.frame_idxs, made.tiles, strict=True):
        tile = frame_tiles(frames[idx], plan.fit, plan.grid, 56, mean, std)
        assert np.array_equal(normalised(levels, mean, std).numpy(), tile[0])
    faster = maker(tiny_spec, max_frames=4).example(record(tmp_path, *texts, video="walk", fps=4))
    assert faster.plans[0].times_s == tuple(idx / 4 for idx in faster.plans[0].frame_idxs)
    slower = maker(tiny_spec, max_frames=4, folder_fps=1.0)
    assert slower.example(record(tmp_path, *texts, video="walk")).plans[0].times_s[-1] > 6
    for fps in (0, "2", True):
        with pytest.raises(ExampleError, match="has fps") as caught:
            slower.example(record(tmp_path, *texts, video="walk", fps=fps))
        assert caught.value.kind == "frame rate"
    (tmp_path / "walk" / "11.png").write_bytes(b"damaged")
    for look in (slower.example, slower.measure):
        with pytest.raises(ExampleError, match=r"11\.png") as caught:
            look(record(tmp_path, *texts, video="walk"))
        assert caught.value.kind == "unreadable file"


def test_pictures_and_text(tiny_spec: ModelSpec, media: Path):
    text = maker(tiny_spec).example(record(media, "Two?", "Yes."))
    turns = (Turn("user", "Two?"), Turn("assistant", "Yes."))
    expected = label_conversation(turns, tiny_spec.tokenizer, tiny_spec.config.template)
    assert (text.ids, text.labels, text.plans) == (expected.ids, expected.labels, ())
    assert text.tiles.shape == (0, 3, 56, 56)
    two = maker(tiny_spec, image_aspect="square").example(
        record(media, "<image> or <image>?", "Both.", image=["a.png", "b.png"])
    )
    assert len(two.plans) == 2
    assert not torch.equal(two.tiles[0], two.tiles[-1])
    assert two.ids.count(MARK) == 2


def test_measures_are_those_of_the_example(tiny_spec: ModelSpec, media: Path):
    one = record(media, "<image>\nWhat?", "Bars.", video="clip.mp4")
    measure, made = maker(tiny_spec).measure(one), maker(tiny_spec).example(one)
    assert measure.num_tokens == made.num_rows
    assert measure.num_visual == made.plans[0].num_tokens
    assert measure.num_learned == len(b"Bars.") + 1


def test_questions_share_their_visuals(tiny_spec: ModelSpec, media: Path):
    texts = ("<image>\nFirst?", "One.", "Second?", "Two.")
    sharing = maker(tiny_spec, share_visuals=True, time_instruction=False)
    made = sharing.example(record(media, *texts, video="clip.mp4"))
    begun = first = made.tails[0]
    second = made.tails[1]
    # What stands behind the visual in every conversation is shared too: here a line feed alone.
    behind = made.ids[made.ids.index(MARK) + 1 : begun]
    assert list(behind) == list(tiny_spec.tokenizer.encode("\n"))
    for tail, question, answer in (
        (made.ids[first:second], *texts[:2]),
        (made.ids[second:], *texts[2:]),
    ):
        question = question.removeprefix("<image>\n")
        alone = sharing.example(record(media, f"<image>\n{question}", answer, video="clip.mp4"))
        assert alone.ids == (*made.ids[:begun], *tail)
        assert alone.tails == ()
    assert [label for label in made.labels if label != -100] == [
        *tiny_spec.tokenizer.encode("One.<|im_end|>"),
        *tiny_spec.tokenizer.encode("Two.<|im_end|>"),
    ]
    # A visual that comes later is seen by the questions after it only: these are learned in turn.
    late = sharing.example(record(media, "Hi?", "Hi.", "<image>\nWhat?", "A.", image="a.png"))
    assert late.tails == ()


@pytest.mark.parametrize(
    ("texts", "shown", "kind"),
    [
        (("<image>", "A"), {"image": "none.png"}, "missing file"),
        (("<image>", "A"), {"video": "noise.mp4"}, "unreadable file"),
        (("<image>", "A"), {"image": "noise.mp4"}, "unreadable file"),
        (("<image>", ""), {"image": "a.png"}, "empty answer"),
        (("What", "A"), {"image": "a.png"}, "marks"),
    ],
)
def test_what_breaks_is_named(
    tiny_spec: ModelSpec, media: Path, texts: tuple[str, str], shown: dict[str, Any], kind: str
):
    for look in (maker(tiny_spec).example, maker(tiny_spec).measure):
        with pytest.raises(ExampleError) as caught:
            look(record(media, *texts, **shown))
        assert caught.value.kind == kind


def test_a_path_that_no_file_can_have_is_a_missing_file(tiny_spec: ModelSpec, media: Path):
    """As where a record holds the picture itself, in base64."""
    for look in (maker(tiny_spec).example, maker(tiny_spec).measure):
        with pytest.raises(ExampleError, match="File name too long") as caught:
            look(record(media, "<image>", "A", image="iVBORw0KGgo" * 1000))
        assert caught.value.kind == "missing file"
        assert "iVBORw0KGgo" in caught.value.message
        assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "cause", [PermissionError(13, "Permission denied"), ValueError("a nought")]
)
def test_what_may_not_be_looked_for_is_a_missing_file(
    tiny_spec: ModelSpec, media: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception
):
    making, one = maker(tiny_spec), record(media, "<image>", "A", image="a.png")

    def refuse(path: Path) -> bool:
        raise cause

    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", refuse)  # a folder's mode does not stop root
        with pytest.raises(ExampleError, match=r"a\.png, which .*(denied|nought)\.") as caught:
            making.measure(one)
    assert caught.value.kind == "missing file"


def test_a_model_that_fuses_is_refused(tiny_spec: ModelSpec):
    fusion = FusionConfig(side=1, num_layers=1)
    dimensions = dataclasses.replace(tiny_spec.config.dimensions, fusion=fusion)
    config = dataclasses.replace(tiny_spec.config, dimensions=dimensions)
    with pytest.raises(ConfigError, match="fuses"):
        maker(dataclasses.replace(tiny_spec, config=config))
