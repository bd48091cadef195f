"""Every sampler on real files: exact frames and times, and those planned are those consumed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import write_video

from llava_video import Video, plan_video
from llava_video.errors import ConfigError, DecodeError
from llava_video.inputs import OpenedVideo, close_all, open_visuals
from llava_video.planning.planner import VideoItem
from llava_video.planning.settings import SamplingSettings
from llava_video.scanning import item_of, scan_for
from llava_video.values import Clip
from llava_video.video.decoder import open_decoder
from llava_video.video.source import open_source
from llava_video.world.bars import read_index
from llava_video.world.clip import write_clip

Write = Callable[..., Path]
RULES = ("uniform", "keyframe", "scene", "dedupe")

# Half a second a frame, then thirty a second: 48 frames, 12.8 s.
VARIABLE_S = [*(np.arange(24) / 2), *(12 + np.arange(24) / 30)]


def lit(level: int, square_px: int = 0) -> np.ndarray:
    frame = np.full((96, 160, 3), level, np.uint8)
    frame[20:50, 60:100] = 255 - level
    frame[40 : 40 + 16, square_px : square_px + 16] = 128
    return frame


@pytest.fixture
def film(tmp_path: Path) -> Write:
    """Write a film at ten a second, with a keyframe every ten frames."""

    def write(frames: list[np.ndarray], **options: Any) -> Path:
        path = tmp_path / "film.mp4"
        quick = {"preset": "ultrafast", "crf": "14", "g": "10"}
        write_clip(path, frames, codec_options=quick, **{"frame_rate_hz": 10, **options})
        return path

    return write


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the rules of all scans that are made from here on."""
    made: list[str] = []

    def counted(decoder: Any, sampling: SamplingSettings) -> Any:
        made.append(str(sampling.rule))
        return scan_for(decoder, sampling)

    monkeypatch.setattr("llava_video.scanning.scan_for", counted)
    return made


def shown(path: Path, plan: Any) -> Iterator[tuple[int, int, float]]:
    """Yield what each planned frame shows, its planned index, and its planned time."""
    opened = open_visuals(path, SamplingSettings())
    visual = plan.visuals[0]
    try:
        frames = [frame for clip in opened[0].clips(visual) for frame in clip.frames]
    finally:
        close_all(opened)
    yield from zip(map(read_index, frames), visual.frame_idxs, visual.times_s, strict=True)


KINDS = {
    "constant": {},
    "variable": {"times_s": VARIABLE_S},
    "late": {"times_s": [3 + idx / 30 for idx in range(48)]},
    "one": {"num_frames": 1},
    "two": {"num_frames": 2},
    "mkv": {"suffix": "mkv", "times_s": VARIABLE_S},
    "ts": {"suffix": "ts"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_index_and_time_are_exact(kind: str, rule: str, tmp_path: Path, tiny_folder: Path) -> None:
    options = dict(KINDS[kind])
    path = write_video(tmp_path / f"clip.{options.pop('suffix', 'mp4')}", **options)
    number = options.get("num_frames", 48)
    times_s = np.asarray(options.get("times_s", np.arange(number) / 30))
    times_s = times_s - times_s[0]
    # The bars of neighbouring frames differ by whole bars: a threshold of 10 sees each of them.
    plan = plan_video(path, model=tiny_folder, sampling=rule, num_frames=7)
    found = list(shown(path, plan))
    assert [seen for seen, _, _ in found] == [idx for _, idx, _ in found]
    # Matroska rounds to a millisecond.
    assert [t for _, _, t in found] == pytest.approx(times_s[[i for _, i, _ in found]], abs=6e-4)
    idxs = [idx for _, idx, _ in found]
    assert idxs == sorted(set(idxs))
    assert 1 <= len(idxs) <= 7
    if number <= 2:  # never twice the same
        assert len(idxs) == (1 if rule == "keyframe" or number == 1 else 2) or rule == "dedupe"
    if rule in ("uniform", "scene") and number > 7:
        assert len(idxs) == 7 or kind in ("variable", "mkv")


def test_keyframes_are_keyframes(tmp_path: Path, tiny_folder: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    with open_decoder(open_source(path)) as decoder:
        keys = decoder.info.keyframe_idxs
    plan = plan_video(path, model=tiny_folder, sampling="keyframe", num_frames=16)
    assert plan.visuals[0].frame_idxs == keys == (0, 12, 24, 36)
    assert "moved to the nearest keyframes, by 0.37 s at most" in plan.reasons[1]  # 47 to 36 of 30
    assert plan.warnings == ("16 moments lie nearest to 4 keyframes: these are used.",)


def test_cuts_are_found_where_they_are(film: Write, tiny_folder: Path) -> None:
    """Two seconds of dark, one of light, three of dark again: a frame of each, in its middle."""
    frames = [
        lit(level) for level, number in ((30, 20), (200, 10), (60, 30)) for _ in range(number)
    ]
    path = film(frames)
    plan = plan_video(path, model=tiny_folder, sampling="scene", num_frames=3)
    # Looked at every fifth and the last: 0 … 15, 20 … 25, 30 … 59, of which the middles are shown.
    assert plan.visuals[0].frame_idxs == (7, 22, 44)
    assert plan.reasons[0].startswith("Looked at 13 frames before the plan, at 2 per second")
    assert "spread over 3 shots by duration" in plan.reasons[2]
    # Six frames by 2, 1 and 3 s: two, one and three.
    six = plan_video(path, model=tiny_folder, sampling="scene", num_frames=6).visuals[0].frame_idxs
    assert [sum(a <= i < b for i in six) for a, b in ((0, 16), (20, 26), (30, 60))] == [2, 1, 3]
    two = plan_video(path, model=tiny_folder, sampling="scene", num_frames=2)
    assert two.visuals[0].frame_idxs == (7, 44)  # the longest
    assert "3 shots are more than the limit" in two.warnings[0]


def test_a_cut_is_found_by_time_on_a_variable_rate(film: Write, tiny_folder: Path) -> None:
    """Ten frames a second apart and sixty in two seconds; the light changes after the fortieth."""
    times_s = [*range(10), *(10 + np.arange(60) / 30)]
    path = film([lit(30 if idx < 40 else 200) for idx in range(70)], times_s=times_s)
    plan = plan_video(path, model=tiny_folder, sampling="scene", num_frames=2)
    # The first shot was seen from 0 to 10.5 s, and 5.25 s shows frame 5; the second from 11 s on
    # to 11.967 s: 11.483 s shows frame 54.
    assert plan.visuals[0].frame_idxs == (5, 54)


def test_noise_a_moving_square_and_a_slow_fade_are_no_cuts(film: Write, tiny_folder: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = [np.clip(lit(90, idx) + rng.normal(0, 12, (96, 160, 1)), 0, 255) for idx in range(60)]
    darker = [lit(200 - 2 * idx) for idx in range(60)]
    for frames in (noisy, darker):
        path = film([frame.astype(np.uint8) for frame in frames])
        plan = plan_video(path, model=tiny_folder, sampling="scene", num_frames=4)
        assert any("spread over one shot" in reason for reason in plan.reasons)


def test_a_fade_through_black_parts_two_scenes(film: Write, tiny_folder: Path) -> None:
    """The scenes are shown by most frames; what lies in the second of the fade adds few shots."""
    ups = [np.uint8(200 * k / 5) for k in range(5)]
    levels = [200] * 30 + ups[::-1] + ups + [200] * 30
    path = film([np.full((96, 160, 3), level, np.uint8) for level in levels])
    plan = plan_video(path, model=tiny_folder, sampling="scene", num_frames=12)
    idxs = plan.visuals[0].frame_idxs
    assert sum(idx < 30 for idx in idxs) >= 4
    assert sum(idx >= 40 for idx in idxs) >= 4
    assert sum(30 <= idx < 40 for idx in idxs) in (1, 2)


def test_repeats_are_dropped_and_a_small_square_is_not(film: Write, tiny_folder: Path) -> None:
    """Still for 2 s, a square of 16 px and 38 levels of contrast jumps in each of the next 2 s."""
    frames = [lit(90)] * 20 + [lit(90, 40)] * 10 + [lit(90, 80)] * 10 + [lit(90, 80)] * 20
    plan = plan_video(film(frames), model=tiny_folder, sampling="dedupe")
    assert plan.visuals[0].frame_idxs == (0, 20, 30)
    assert "9 repeats dropped" in plan.reasons[1]


def test_equal_pixels_are_dropped_and_others_kept_at_zero(tiny_folder: Path) -> None:
    frames = np.stack([lit(90)] * 3 + [lit(91)] * 2 + [lit(90)])
    video = frames, np.arange(6.0)
    plan = plan_video(video, model=tiny_folder, sampling="dedupe", dedupe_threshold=0)
    assert plan.visuals[0].frame_idxs == (0, 3, 5)
    loose = plan_video(video, model=tiny_folder, sampling="dedupe")
    assert loose.visuals[0].frame_idxs == (0,)


def test_a_plan_is_run_without_a_second_scan(
    film: Write, tiny_model: Any, scans: list[str]
) -> None:
    path = film([lit(level) for level in (30, 200) for _ in range(20)])
    plan = tiny_model.plan(path, "Why?", sampling="scene", num_frames=4, max_new_tokens=4)
    assert scans == ["scene"]
    again = Video(path, sampling="scene")
    for video in (None, again):
        answer = tiny_model.run(plan, video=video)
        assert tuple(ref.frame_idx for ref in answer.frames) == plan.visuals[0].frame_idxs
        assert [ref.pts_s for ref in answer.frames] == list(plan.visuals[0].times_s)
    assert scans == ["scene"]


def test_describe_ask_many_and_chat_scan_once(
    film: Write, tiny_model: Any, scans: list[str]
) -> None:
    path = film([lit(level) for level in (30, 200) for _ in range(20)])
    asked = {"sampling": "dedupe", "max_new_tokens": 4}
    assert [ref.frame_idx for ref in tiny_model.describe(path, **asked).frames] == [0, 20]
    tiny_model.ask_many(path, ["What?", "When?"], **asked)
    with tiny_model.chat(path, **asked) as session:
        session.ask("What?")
        session.ask("When?")
    assert scans == ["dedupe"] * 3


def test_each_window_of_a_timeline_is_scanned_for_itself(
    film: Write, tiny_model: Any, scans: list[str]
) -> None:
    path = film([lit(level) for level in (30, 200) for _ in range(20)])
    timeline = tiny_model.timeline(
        path, window_s=2.0, summary=False, sampling="dedupe", max_new_tokens=4
    )
    seen = [[ref.frame_idx for ref in c.description.frames] for c in timeline.captions]
    assert seen == [[0], [20]]
    assert scans == ["dedupe"] * 2


def test_a_batch_has_a_rule_for_each(film: Write, tiny_model: Any) -> None:
    path = film([lit(level) for level in (30, 200) for _ in range(20)])
    requests = [
        {"video": path, "sampling": "keyframe", "scan_fps": None},
        {"video": Video(path, sampling="dedupe")},
        {"video": [Video(path, sampling="uniform", num_frames=2), Video(path)]},
    ]
    answers = tiny_model.batch(requests, sampling="scene", scan_fps=5, max_new_tokens=4)
    idxs = [[ref.frame_idx for ref in answer.frames] for answer in answers]
    assert idxs[:2] == [[0, 10, 20, 30], [0, 20]]
    assert idxs[2][:2] == [0, 39]


def test_only_what_needs_a_scan_is_scanned(tiny_clip: Path) -> None:
    for rule in ("uniform", "keyframe"):
        opened = open_visuals(tiny_clip, SamplingSettings(rule=rule))
        item = item_of(opened[0])
        close_all(opened)
        assert isinstance(item, VideoItem)
        assert item.scan is None


def test_an_own_sampler_is_asked_once_and_checked(tiny_folder: Path, tiny_clip: Path) -> None:
    calls: list[tuple[int, float, float, int]] = []

    def twice(info: Any, *, span: Any, max_frames: int) -> list[float]:
        calls.append((info.num_frames, span.start_s, span.end_s, max_frames))
        return [0.5, 0.25, 0.5]

    # So small a limit that a longer context is tried, too: several drafts, and one question.
    plan = plan_video(tiny_clip, model=tiny_folder, sampling=twice, max_video_tokens=3, end=1.0)
    assert calls == [(40, 0.0, 1.0, 64)]
    whole = plan_video(tiny_clip, model=tiny_folder, sampling=twice)
    assert whole.visuals[0].frame_idxs == (7, 15)
    assert "chosen by twice" in whole.reasons[0]
    assert plan.visuals[0].frame_idxs == (7,)


def test_lost_frames_of_a_plan_by_scan_are_left_out_without_another(
    videos: Path, tiny_model: Any, scans: list[str]
) -> None:
    """The damage lies between two looks: the plan names frames that cannot be decoded."""
    answer = tiny_model.describe(videos / "corrupted.mp4", sampling="scene", max_new_tokens=4)
    assert scans == ["scene"]
    assert len(answer.frames) == answer.plan.visuals[0].num_frames > 0
    assert any("could not be looked at" in warning for warning in answer.warnings)


@pytest.mark.parametrize("reader", ["decord", "pyav"])
@pytest.mark.parametrize("rule", ["scene", "dedupe"])
def test_a_reader_that_has_looked_still_gives_the_right_frames(
    rule: str, reader: Any, tmp_path: Path
) -> None:
    pytest.importorskip(reader.replace("pyav", "av"))
    path = write_video(tmp_path / "clip.mp4", num_frames=90)
    opened = open_visuals(path, SamplingSettings(rule=rule), reader)[0]
    assert isinstance(opened, OpenedVideo)
    item = item_of(opened)
    assert isinstance(item, VideoItem)
    assert item.scan is not None
    assert item.scan.frame_idxs[:6].tolist() == [0, 15, 30, 45, 60, 75]
    wanted = [2, 31, 32, 77]
    clips = opened.decoder.clips_at(opened.decoder.info.pts_s[wanted].tolist())
    assert [read_index(frame) for clip in clips for frame in clip.frames] == wanted
    opened.close()


def test_nothing_to_look_at_is_an_error(tiny_clip: Path) -> None:
    opened = open_visuals(tiny_clip, SamplingSettings(rule="scene"))
    video = opened[0]
    assert isinstance(video, OpenedVideo)

    class Blind:
        info = video.decoder.info

        def clips_at(self, times_s: Any, *, chunk_frames: int = 8) -> Iterator[Clip]:
            raise DecodeError("none of the frames can be decoded.")
            yield

    with pytest.raises(DecodeError, match="none of the frames"):
        item_of(replace(video, decoder=Blind()))
    close_all(opened)
    late = open_visuals(tiny_clip, SamplingSettings(rule="dedupe", start_s=60.0))
    with pytest.raises(ConfigError, match="the video ends at"):
        item_of(late[0])
    close_all(late)
