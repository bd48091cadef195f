"""A model of a closed world says when it is shown something else, and no other model does."""

from pathlib import Path

import numpy as np
import pytest

from llava_video.api import LlavaVideo, load
from llava_video.footage import footage_warnings
from llava_video.inputs import Picture
from llava_video.model.card import ModelCard
from llava_video.values import Clip
from llava_video.video.evidence import Evidence
from llava_video.world.composer import compose
from llava_video.world.render import render
from llava_video.world.splits import split_settings

SMALL = ModelCard(name="toy", world="small")


def seen(frames: np.ndarray) -> Evidence:
    evidence, order = Evidence(len(frames)), np.arange(len(frames))
    list(evidence.watch(iter([Clip(frames, order / 2, order)])))
    return evidence


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, list[float]]:
    made = compose(split_settings("heldout"), "footage", 0, 0)
    return render(made), [made.time_of(idx) for idx in range(made.num_frames)]


@pytest.fixture(scope="module")
def demo(demo_checkpoint: Path) -> "LlavaVideo":
    del demo_checkpoint
    with load("demo", device="cpu") as model:
        yield model


def test_only_a_closed_world_is_looked_for() -> None:
    grey = [seen(np.full((2, 20, 20, 3), 118, np.uint8))]
    assert list(footage_warnings(None, ["a"], grey)) == []
    assert list(footage_warnings(ModelCard(name="toy"), ["a"], grey)) == []
    (warning,) = footage_warnings(SMALL, ["a"], grey)
    assert warning == (
        "No frame has an object in one of the small world's eight colours. The model 'toy' knows "
        "the small world alone, and its words mean nothing here: name a real model, such as "
        "lmms-lab/LLaVA-Video-7B-Qwen2."
    )


def test_of_several_visuals_the_unlike_ones_are_named(scene) -> None:
    grey, like = seen(np.full((2, 20, 20, 3), 118, np.uint8)), seen(scene[0][::6])
    (warning,) = footage_warnings(SMALL, ["a.mp4", "b.mp4"], [like, grey])
    assert warning.startswith("b.mp4: No frame has an object")


def test_the_answer_says_so_however_often_it_is_asked(
    demo: LlavaVideo, tiny_clip: Path, scene
) -> None:
    """The second question has its frames from the cache; they are as unlike as before."""
    options = {"max_new_tokens": 2}
    for answer in (
        demo.describe(tiny_clip, **options),
        demo.ask(tiny_clip, "What shape is the red object?", **options),
        *demo.ask_many(tiny_clip, ["Who?", "When?"], **options),
    ):
        assert sum("small world alone" in one for one in answer.warnings) == 1
    with demo.chat(tiny_clip, **options) as chat:
        assert any("small world alone" in one for one in chat.ask("What is this?").warnings)
    like = demo.describe(scene, **options)
    assert "Describe the video in detail." in like.plan.prompt  # as its card has it
    assert not any("small world" in one for one in like.warnings)


def test_pictures_are_looked_at_too(demo: LlavaVideo, scene) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    pair = [Picture(scene[0][-1]), Picture(photo)]
    answer = demo.ask(pair, "What is this?", max_new_tokens=2)
    (warning,) = [one for one in answer.warnings if "small world" in one]
    assert ": An even background explains" in warning


def test_real_footage_is_unlike(demo: LlavaVideo, videos: Path) -> None:
    for name in ("safari.mp4", "video_0.mov", "unordered.mov", "flipping_a_pancake.mkv"):
        answer = demo.describe(videos / name, max_new_tokens=1)
        assert any("name a real model" in one for one in answer.warnings), name


def test_other_models_say_nothing(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    answer = tiny_model.describe(tiny_clip, num_frames=4, max_new_tokens=2)
    assert not any("small world" in one for one in answer.warnings)


def test_windows_are_asked_in_words_that_the_model_was_taught(demo: LlavaVideo, scene) -> None:
    timeline = demo.timeline(scene, window_s=3.0, summary=False, max_new_tokens=2)
    prompts = [caption.description.plan.prompt for caption in timeline.captions]
    assert len(prompts) >= 3
    assert all("Describe the video in detail." in prompt for prompt in prompts)
