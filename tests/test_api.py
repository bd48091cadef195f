"""Every verb, on a real (synthetic) file, through every stage, with a tiny random tiny_model."""

import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import overlay_cases as cases
import pytest
import torch
from PIL import Image

from llava_video.api import LlavaVideo, describe_video, load
from llava_video.engine.request import Event, Progress
from llava_video.engine.settings import EngineSettings
from llava_video.errors import ConfigError, SourceError
from llava_video.inputs import Picture, Video
from llava_video.planning.plan_json import plan_from_json
from llava_video.preview import plan_video
from llava_video.values import Description
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip

SHORT = {"max_new_tokens": 6, "num_frames": 4, "loop_guard": False}


def test_describe_says_what_the_model_saw(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    seen = tiny_model.describe(tiny_clip, "What happens?", **SHORT)
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


def test_a_sandbox_changes_no_answer(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    plain = tiny_model.describe(tiny_clip, "What happens?", **SHORT)
    boxed = tiny_model.describe(tiny_clip, "What happens?", sandbox=True, **SHORT)
    assert (boxed.text, boxed.frames, boxed.plan) == (plain.text, plain.frames, plain.plan)
    assert boxed.provenance["videos"] == plain.provenance["videos"]
    assert tiny_model.run(plain.plan, sandbox=True, loop_guard=False).text == plain.text


def test_a_plan_runs_exactly_and_survives_json(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    plan = tiny_model.plan(tiny_clip, "What happens?", **SHORT)
    folder = tiny_model.spec.folder
    assert plan == plan_video(tiny_clip, "What happens?", model=folder, device="cpu", **SHORT)
    again = plan_from_json(plan.to_json())
    assert again == plan
    answer = tiny_model.run(again, loop_guard=False)
    assert answer.plan == plan
    assert answer.text == tiny_model.describe(tiny_clip, "What happens?", **SHORT).text
    with pytest.raises(ConfigError, match="the plan decides"):
        tiny_model.run(plan, num_frames=2)


def test_a_plan_refuses_another_video(
    tiny_model: LlavaVideo, tiny_clip: Path, tmp_path: Path
) -> None:
    plan = tiny_model.plan(tiny_clip, **SHORT)
    write_clip(tmp_path / "other.mp4", [paint_index(i, 96, 128) for i in range(3)])
    with pytest.raises(ConfigError, match="other frames or times"):
        tiny_model.run(plan, video=tmp_path / "other.mp4")
    slow = [paint_index(i, 96, 128) for i in range(40)]
    write_clip(tmp_path / "slow.mp4", slow, frame_rate_hz=10)
    with pytest.raises(ConfigError, match="other frames or times"):
        tiny_model.run(plan, video=tmp_path / "slow.mp4")
    with pytest.raises(ConfigError, match="is not one"):
        tiny_model.run(plan, video=Picture(slow[0]))
    with pytest.raises(ConfigError, match="was made for"):
        tiny_model.run(dataclasses.replace(plan, model="another"))


def test_a_plan_of_reference_times_runs(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    plan = tiny_model.plan(tiny_clip, max_frames=50, max_new_tokens=2, compat="reference")
    assert len(tiny_model.run(plan).frames) == 50


def test_bytes_and_arrays_give_the_same_answer_as_the_file(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    from_file = tiny_model.describe(tiny_clip, **SHORT)
    assert tiny_model.describe(tiny_clip.read_bytes(), **SHORT).text == from_file.text
    with tiny_clip.open("rb") as file:
        assert tiny_model.describe(file, **SHORT).text == from_file.text


def test_stream_pieces_join_to_the_text(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    stream = tiny_model.stream(tiny_clip, **SHORT)
    assert (
        "".join(stream) == stream.description.text == tiny_model.describe(tiny_clip, **SHORT).text
    )


def test_leaving_a_stream_early_frees_its_memory(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    arena = tiny_model.engine.arena  # type: ignore[attr-defined]  # the scheduler's
    kept_tokens = arena.used_tokens  # an earlier answer's visuals
    with tiny_model.stream(tiny_clip, **SHORT | {"max_new_tokens": 400}) as stream:
        for _ in stream:
            break
        assert arena.used_tokens > kept_tokens
    assert arena.used_tokens <= kept_tokens


def test_ask_many_equals_asking_one_by_one(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    questions = ["Is it day?", "How many people are there, and what do they do?", "Why?"]
    many = tiny_model.ask_many(tiny_clip, questions, **SHORT)
    assert [a.text for a in many] == [tiny_model.ask(tiny_clip, q, **SHORT).text for q in questions]
    assert many[1].usage.reused_tokens >= many[1].usage.visual_tokens > 0
    assert len(many[2].frames) == 4


def test_batch_answers_in_order_and_isolates_errors(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    requests = [
        tiny_clip,
        "no/such/file.mp4",
        {"video": tiny_clip, "prompt": "Why?", "num_frames": 2},
        {"video": None, "prompt": "Hello"},
    ]
    results = list(tiny_model.batch(requests, "What?", on_error="return", **SHORT))
    assert isinstance(results[1], SourceError)
    answers = [r for r in results if isinstance(r, Description)]
    assert [a.text for a in answers] == [
        tiny_model.ask(tiny_clip, "What?", **SHORT).text,
        tiny_model.ask(tiny_clip, "Why?", **SHORT | {"num_frames": 2}).text,
        tiny_model.ask(None, "Hello", **SHORT).text,
    ]
    with pytest.raises(SourceError):
        list(tiny_model.batch(requests, "What?", **SHORT))
    with pytest.raises(ConfigError, match="on_error"):
        tiny_model.batch([], on_error="ignore")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match="unknown option"):
        tiny_model.batch([], frames=3)  # type: ignore[call-arg]  # what is tested


def test_many_callers_share_one_model(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    questions = [f"Question number {i}?" for i in range(6)]
    alone = [tiny_model.ask(tiny_clip, q, **SHORT).text for q in questions]
    together = [""] * len(questions)

    def ask(idx: int) -> None:
        together[idx] = tiny_model.ask(tiny_clip, questions[idx], **SHORT).text

    threads = [threading.Thread(target=ask, args=(idx,)) for idx in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone


def test_neither_video_nor_words_is_refused(tiny_model: LlavaVideo) -> None:
    with pytest.raises(ConfigError, match="neither a video nor a question"):
        tiny_model.describe(None)
    for question in ("", "  "):
        with pytest.raises(ConfigError, match="question is empty"):
            tiny_model.ask(None, question)
    with pytest.raises(ConfigError, match="a list of str"):
        tiny_model.ask(None, ["What?"])  # type: ignore[list-item]  # what is tested


def test_pictures_and_videos_in_one_prompt(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    picture = np.full((60, 80, 3), 200, np.uint8)
    one = tiny_model.ask(Picture(picture), "What is it?", max_new_tokens=4)
    assert one.plan.visuals[0].kind == "image"
    mixed = tiny_model.ask(
        [Picture(picture), Video(address=tiny_clip, num_frames=2)], "Compare.", max_new_tokens=4
    )
    assert [v.kind for v in mixed.plan.visuals] == ["image", "video"]
    assert mixed.plan.visuals[1].num_frames == 2
    with pytest.raises(ConfigError, match="neither Video nor Picture"):
        tiny_model.ask([tiny_clip, tiny_clip], "Compare.")


def test_timeline_covers_the_video(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    duration_s = tiny_model.plan(tiny_clip).visuals[0].times_s[-1]
    timeline = tiny_model.timeline(
        tiny_clip, window_s=duration_s / 3, max_new_tokens=4, num_frames=2
    )
    assert timeline.coverage[0].start_s == 0.0
    assert timeline.coverage[-1].end_s >= duration_s
    for caption in timeline.captions:
        for ref in caption.description.frames:
            assert caption.segment.start_s - 0.05 <= ref.pts_s < caption.segment.end_s


def test_a_timeline_keeps_to_the_span_of_its_video(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    part = Video(tiny_clip, start=0.2, end=1.0)
    with tiny_clip.open("rb") as file:  # can be read only once
        for video, options in ((part, {}), (file, {"start": 0.2, "end": 1.0})):
            timeline = tiny_model.timeline(
                video, window_s=0.4, summary=False, max_new_tokens=2, num_frames=2, **options
            )
            spans = [t for c in timeline.captions for t in (c.segment.start_s, c.segment.end_s)]
            assert spans == pytest.approx([0.2, 0.6, 0.6, 1.0])
            seen = [ref.pts_s for c in timeline.captions for ref in c.description.frames]
            assert seen == pytest.approx([0.2, 17 / 30, 0.6, 29 / 30])


def test_a_timeline_of_nothing_is_refused(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    with pytest.raises(ConfigError, match="is empty"):
        tiny_model.timeline(tiny_clip, start=99)
    with pytest.raises(ConfigError, match="of one video"):
        tiny_model.timeline(Picture(np.zeros((9, 9, 3), np.uint8)))


def test_choices_come_with_confidence(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    answer = tiny_model.ask(tiny_clip, "Is it day?", response_format=["yes", "no"], **SHORT)
    assert answer.parsed in ("yes", "no")
    assert answer.confidence is not None
    assert 0.5 <= answer.confidence <= 1.0


def test_a_model_that_saw_nothing_says_so(tiny_model: LlavaVideo) -> None:
    times_s = np.arange(5) / 5
    black = np.zeros((5, 40, 60, 3), np.uint8)
    assert any("black" in w for w in tiny_model.describe((black, times_s), **SHORT).warnings)
    still = np.full((5, 40, 60, 3), 90, np.uint8)
    assert any("same picture" in w for w in tiny_model.describe((still, times_s), **SHORT).warnings)


def test_contact_sheet_is_written(tiny_model: LlavaVideo, tiny_clip: Path, tmp_path: Path) -> None:
    tiny_model.describe(tiny_clip, **SHORT).contact_sheet(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 500


def test_describe_video_is_one_call(
    tiny_folder: Path, tiny_clip: Path, tiny_model: LlavaVideo
) -> None:
    text = describe_video(tiny_clip, model=tiny_folder, device="cpu", dtype="float32", **SHORT).text
    assert (
        text
        == tiny_model.describe(tiny_clip, **SHORT).text
        == describe_video(tiny_clip, model=tiny_model, **SHORT).text
    )
    with pytest.raises(ConfigError, match="settled when a model is loaded"):
        describe_video(tiny_clip, model=tiny_model, device="cpu")
    with pytest.raises(ConfigError, match="settled when a model is loaded"):
        describe_video(tiny_clip, model=tiny_model, template="mpt")
    other = describe_video(tiny_clip, model=tiny_folder, device="cpu", template="mpt", **SHORT)
    assert other.plan.prompt.startswith("<|im_start|>system\nA conversation between")
    with pytest.raises(TypeError, match="did you mean 'fps'"):
        describe_video(tiny_clip, model=tiny_folder, fpss=1)  # type: ignore[call-arg]  # what is tested


def test_an_overlay_answers_as_the_weights_it_makes(
    tiny_folder: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    """A projector over a base that is named by hand, and the same weights in one folder."""
    draw = torch.Generator().manual_seed(0)
    own = {f"{cases.PROJECTOR}2.bias": 20 * torch.randn(64, generator=draw)}
    overlay = cases.write_projector(tiny_folder, tmp_path / "overlay", own, _name_or_path=None)
    whole = cases.write_model(tiny_folder, tmp_path / "whole", cases.stored(tiny_folder) | own)
    asked = {"device": "cpu", **SHORT}
    over = {"base": tiny_folder, "template": "qwen_1_5"}
    text = describe_video(tiny_clip, model=overlay, **over, **asked).text
    assert text == describe_video(tiny_clip, model=whole, **asked).text
    assert text != describe_video(tiny_clip, model=tiny_folder, **asked).text
    with load(whole, device="cpu") as loaded, pytest.raises(ConfigError, match="when a model is l"):
        describe_video(tiny_clip, model=loaded, base=tiny_folder)


def test_the_same_seed_gives_the_same_sample(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    hot = SHORT | {"temperature": 1.5, "max_new_tokens": 12}
    assert (
        tiny_model.ask(tiny_clip, "Go.", seed=3, **hot).text
        == tiny_model.ask(tiny_clip, "Go.", seed=3, **hot).text
    )
    assert len({tiny_model.ask(tiny_clip, "Go.", seed=s, **hot).text for s in range(4)}) > 1


def test_reference_compat_keeps_duplicates(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    plan = tiny_model.plan(tiny_clip, num_frames=None, max_frames=64, compat="reference")
    assert plan.visuals[0].num_frames == 64
    assert len(set(plan.visuals[0].frame_idxs)) == 40
    assert dataclasses.replace(plan) == plan


@pytest.mark.parametrize(
    ("name", "num_frames", "num_seen"),
    [
        ("safari.mp4", 4, 4),
        ("llava_next_demo.mp4", 4, 4),
        ("flipping_a_pancake.mkv", 4, 4),
        ("corrupted.mp4", 8, 5),
        ("unordered.mov", 8, 4),
        ("video_0.mov", 3, 3),
        ("video_90.mov", 3, 3),
        ("video_180.mov", 3, 3),
        ("video_270.mov", 3, 3),
        ("av1_video.mkv", 4, 4),
        ("h265_10bits.mp4", 4, 4),
        ("bt709_full_range.mp4", 4, 4),
    ],
)
def test_every_real_video_is_described(
    tiny_model: LlavaVideo, videos: Path, name: str, num_frames: int, num_seen: int
) -> None:
    answer = tiny_model.describe(videos / name, num_frames=num_frames, max_new_tokens=2)
    assert len(answer.frames) == answer.plan.visuals[0].num_frames == num_seen
    assert answer.coverage[0].start_s == 0.0
    told = any("cannot be decoded" in warning for warning in answer.warnings)
    assert told == (name == "corrupted.mp4")
    auto, pyav = (
        tiny_model.describe(videos / name, num_frames=num_frames, max_new_tokens=2, reader=reader)
        for reader in ("auto", "pyav")
    )
    assert (auto.text, auto.frames) == (pyav.text, pyav.frames)


def test_a_picture_is_known_by_its_bytes_however_it_comes(
    tiny_model: LlavaVideo, tiny_clip: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (90, 60), (200, 90, 10)).save(tmp_path / "still.png")
    bare = tmp_path / "still"
    bare.write_bytes((tmp_path / "still.png").read_bytes())
    plans = [
        tiny_model.plan(given)
        for given in (tmp_path / "still.png", bare, bare.read_bytes(), bare.open("rb"))
    ]
    assert [plan.visuals[0].kind for plan in plans] == ["image"] * 4
    assert len({plan.visual_tokens for plan in plans}) == 1
    misnamed = tmp_path / "clip.jpg"
    misnamed.write_bytes(tiny_clip.read_bytes())
    assert tiny_model.plan(misnamed).visuals[0].kind == "video"


def test_a_tiny_temperature_is_greedy_and_not_silence(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    greedy = tiny_model.ask(tiny_clip, "Go.", **SHORT).text
    assert tiny_model.ask(tiny_clip, "Go.", temperature=1e-40, **SHORT).text == greedy != ""


def test_thumbnails_of_all_visuals_are_kept(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    picture = Picture(np.full((60, 80, 3), 200, np.uint8))
    answer = tiny_model.ask([picture, Video(tiny_clip)], "Compare.", **SHORT)
    assert answer.thumbnails is not None
    assert len(answer.thumbnails) == len(answer.thumbnail_times_s) == 5


def test_a_second_question_about_the_same_frames_never_decodes_them(
    tiny_folder: Path, tiny_clip: Path
) -> None:
    def stages(told: list[Event]) -> set[str]:
        return {event.stage for event in told if isinstance(event, Progress)}

    told: list[Event] = []
    with load(tiny_folder, on_event=told.append) as model:
        first = model.ask(tiny_clip, "What is shown?", **SHORT)
        assert "vision" in stages(told)
        told.clear()
        second = model.ask(tiny_clip, "How many bars are lit?", **SHORT)
        assert "vision" not in stages(told)
        assert second.usage.reused_tokens >= second.usage.visual_tokens
        assert second.frames == first.frames
        assert second.coverage == first.coverage
        assert second.warnings == first.warnings
        assert np.array_equal(second.thumbnails, first.thumbnails)
        told.clear()
        model.ask(tiny_clip, "What is shown?", num_frames=3, max_new_tokens=6)  # other frames
        assert "vision" in stages(told)
    with load(tiny_folder, engine=EngineSettings(kept_prefixes=0)) as fresh:
        alone = fresh.ask(tiny_clip, "How many bars are lit?", **SHORT)
    assert second.text == alone.text
    assert alone.usage.reused_tokens == 0
