"""Every verb, on a real (synthetic) file, through every stage, with a tiny random model."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from llava_video.api import LlavaVideo, describe_video, load
from llava_video.engine.request import Progress
from llava_video.errors import BudgetError, ConfigError, LlavaVideoError, SourceError
from llava_video.inputs import Picture, Video
from llava_video.planning.plan_json import plan_from_json, plan_to_json
from llava_video.preview import plan_video
from llava_video.values import Description
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip

SHORT = {"max_new_tokens": 6, "num_frames": 4, "loop_guard": False}


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Iterator[LlavaVideo]:
    with load(tiny_folder) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, [paint_index(i, 96, 128) for i in range(40)])
    return path


def test_describe_says_what_the_model_saw(model: LlavaVideo, clip: Path) -> None:
    seen = model.describe(clip, "What happens?", **SHORT)
    assert seen.usage.new_tokens <= 6
    assert [ref.frame_idx for ref in seen.frames] == [0, 13, 26, 39]
    assert seen.usage.visual_tokens == seen.plan.visual_tokens
    assert seen.usage.text_tokens + seen.usage.visual_tokens == seen.plan.tokens
    assert seen.coverage[0].start_s == 0.0
    assert {"decode", "vision", "prefill", "generate", "total"} <= set(seen.timings)
    assert seen.provenance["videos"][0]["reader"] in ("decord", "pyav")
    values = json.loads(seen.to_json())
    assert values["text"] == seen.text
    assert "thumbnails" not in values


def test_a_plan_runs_exactly_and_survives_json(model: LlavaVideo, clip: Path) -> None:
    plan = model.plan(clip, "What happens?", **SHORT)
    folder = model.spec.folder
    assert plan == plan_video(clip, "What happens?", model=folder, dtype="float32", **SHORT)
    again = plan_from_json(plan_to_json(plan))
    assert again == plan
    answer = model.run(again, loop_guard=False)
    assert answer.plan == plan
    assert answer.text == model.describe(clip, "What happens?", **SHORT).text
    with pytest.raises(ConfigError, match="the plan decides"):
        model.run(plan, num_frames=2)


def test_a_plan_refuses_another_video(model: LlavaVideo, clip: Path, tmp_path: Path) -> None:
    plan = model.plan(clip, **SHORT)
    write_clip(tmp_path / "other.mp4", [paint_index(i, 96, 128) for i in range(3)])
    with pytest.raises(ConfigError, match="was planned as"):
        model.run(plan, video=tmp_path / "other.mp4")


def test_bytes_and_arrays_give_the_same_answer_as_the_file(model: LlavaVideo, clip: Path) -> None:
    from_file = model.describe(clip, **SHORT)
    assert model.describe(clip.read_bytes(), **SHORT).text == from_file.text
    with clip.open("rb") as file:
        assert model.describe(file, **SHORT).text == from_file.text


def test_stream_pieces_join_to_the_text(model: LlavaVideo, clip: Path) -> None:
    stream = model.stream(clip, **SHORT)
    assert "".join(stream) == stream.description.text == model.describe(clip, **SHORT).text


def test_leaving_a_stream_early_frees_its_memory(model: LlavaVideo, clip: Path) -> None:
    stream = model.stream(clip, **SHORT | {"max_new_tokens": 400})
    iterator = iter(stream)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]  # a generator
    with pytest.raises(LlavaVideoError, match="left before its end"):
        _ = stream.description


def test_ask_many_equals_asking_one_by_one(model: LlavaVideo, clip: Path) -> None:
    questions = ["Is it day?", "How many people are there, and what do they do?", "Why?"]
    many = model.ask_many(clip, questions, **SHORT)
    assert [a.text for a in many] == [model.ask(clip, q, **SHORT).text for q in questions]
    assert many[1].usage.reused_tokens >= many[1].usage.visual_tokens > 0
    assert len(many[2].frames) == 4


def test_chat_equals_a_fresh_request_and_encodes_once(model: LlavaVideo, clip: Path) -> None:
    stages: list[str] = []
    watched = LlavaVideo(
        model.spec,
        model.engine,
        on_event=lambda e: stages.append(e.stage) if isinstance(e, Progress) else None,
    )
    with watched.chat(clip, **SHORT) as chat:
        first = chat.ask("What is this?")
        assert "vision" in stages
        stages.clear()
        second = chat.ask("And then?")
        assert "vision" not in stages
        turns = chat.turns
    assert first.text == model.ask(clip, "What is this?", **SHORT).text
    assert second.usage.reused_tokens > second.usage.visual_tokens
    assert second.text == model.ask(clip, turns[:3], **SHORT).text


def test_batch_answers_in_order_and_isolates_errors(model: LlavaVideo, clip: Path) -> None:
    requests = [
        clip,
        "no/such/file.mp4",
        {"video": clip, "prompt": "Why?", "num_frames": 2},
        {"video": None, "prompt": "Hello"},
    ]
    results = list(model.batch(requests, "What?", on_error="return", **SHORT))
    assert isinstance(results[1], SourceError)
    answers = [r for r in results if isinstance(r, Description)]
    assert [a.text for a in answers] == [
        model.ask(clip, "What?", **SHORT).text,
        model.ask(clip, "Why?", **SHORT | {"num_frames": 2}).text,
        model.ask(None, "Hello", **SHORT).text,
    ]
    with pytest.raises(SourceError):
        list(model.batch(requests, "What?", **SHORT))


def test_many_callers_share_one_model(model: LlavaVideo, clip: Path) -> None:
    questions = [f"Question number {i}?" for i in range(6)]
    alone = [model.ask(clip, q, **SHORT).text for q in questions]
    together = [""] * len(questions)

    def ask(idx: int) -> None:
        together[idx] = model.ask(clip, questions[idx], **SHORT).text

    threads = [threading.Thread(target=ask, args=(idx,)) for idx in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone


def test_pictures_and_videos_in_one_prompt(model: LlavaVideo, clip: Path) -> None:
    picture = np.full((60, 80, 3), 200, np.uint8)
    one = model.ask(Picture(picture), "What is it?", max_new_tokens=4)
    assert one.plan.visuals[0].kind == "image"
    mixed = model.ask(
        [Picture(picture), Video(address=clip, num_frames=2)], "Compare.", max_new_tokens=4
    )
    assert [v.kind for v in mixed.plan.visuals] == ["image", "video"]
    assert mixed.plan.visuals[1].num_frames == 2
    with pytest.raises(ConfigError, match="neither Video nor Picture"):
        model.ask([clip, clip], "Compare.")


def test_timeline_covers_the_video(model: LlavaVideo, clip: Path) -> None:
    duration_s = model.plan(clip).visuals[0].times_s[-1]
    timeline = model.timeline(clip, window_s=duration_s / 3, max_new_tokens=4, num_frames=2)
    assert timeline.coverage[0].start_s == 0.0
    assert timeline.coverage[-1].end_s >= duration_s
    for caption in timeline.captions:
        for ref in caption.description.frames:
            assert caption.segment.start_s - 0.05 <= ref.pts_s < caption.segment.end_s


def test_choices_come_with_confidence(model: LlavaVideo, clip: Path) -> None:
    answer = model.ask(clip, "Is it day?", response_format=["yes", "no"], **SHORT)
    assert answer.parsed in ("yes", "no")
    assert answer.confidence is not None
    assert 0.5 <= answer.confidence <= 1.0


def test_a_model_that_saw_nothing_says_so(model: LlavaVideo) -> None:
    times_s = np.arange(5) / 5
    black = np.zeros((5, 40, 60, 3), np.uint8)
    assert any("black" in w for w in model.describe((black, times_s), **SHORT).warnings)
    still = np.full((5, 40, 60, 3), 90, np.uint8)
    assert any("same picture" in w for w in model.describe((still, times_s), **SHORT).warnings)


def test_a_conversation_that_outgrows_the_context_is_a_budget_error(
    model: LlavaVideo, clip: Path
) -> None:
    with model.chat(clip, **SHORT) as chat:
        chat.ask("What is this?")
        with pytest.raises(BudgetError, match="the context holds"):
            chat.ask("word " * model.spec.geometry.context_tokens)
        assert len(chat.turns) == 2


def test_contact_sheet_is_written(model: LlavaVideo, clip: Path, tmp_path: Path) -> None:
    model.describe(clip, **SHORT).contact_sheet(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 500


def test_describe_video_is_one_call(tiny_folder: Path, clip: Path, model: LlavaVideo) -> None:
    text = describe_video(clip, model=tiny_folder, device="cpu", dtype="float32", **SHORT).text
    assert (
        text
        == model.describe(clip, **SHORT).text
        == describe_video(clip, model=model, **SHORT).text
    )
    with pytest.raises(TypeError, match="did you mean 'fps'"):
        describe_video(clip, model=tiny_folder, fpss=1)  # type: ignore[call-arg]  # what is tested


def test_the_same_seed_gives_the_same_sample(model: LlavaVideo, clip: Path) -> None:
    hot = SHORT | {"temperature": 1.5, "max_new_tokens": 12}
    assert model.ask(clip, "Go.", seed=3, **hot).text == model.ask(clip, "Go.", seed=3, **hot).text
    assert len({model.ask(clip, "Go.", seed=s, **hot).text for s in range(4)}) > 1


def test_reference_compat_keeps_duplicates(model: LlavaVideo, clip: Path) -> None:
    plan = model.plan(clip, num_frames=None, max_frames=64, compat="reference")
    assert plan.visuals[0].num_frames == 64
    assert len(set(plan.visuals[0].frame_idxs)) == 40
    assert dataclasses.replace(plan) == plan
