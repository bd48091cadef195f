"""Windows cover a video without gaps; captions keep their true times; failures are told."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.errors import BudgetError, CapacityError, ConfigError, DecodeError
from llava_video.timeline import (
    Caption,
    Patience,
    Timeline,
    ask_timeline,
    make_timeline,
    windows,
)
from llava_video.values import Description, Segment


class FakeModel:
    """Answers each window with its own bounds; merging counts, up to a length of prompt."""

    def __init__(self, broken: tuple[float, ...] = (), longest: int = 10_000) -> None:
        self.broken, self.longest, self.merged = broken, longest, list[str]()

    def merge(self, prompt: str) -> str:
        if len(prompt) > self.longest:
            raise BudgetError("too long")
        self.merged.append(prompt)
        return f"merged {len(self.merged)}"

    def timeline(self, cut: list[Segment]) -> Timeline:
        return make_timeline(cut, (self._answer(segment) for segment in cut), self.merge)

    def _answer(self, segment: Segment) -> Description | DecodeError:
        if segment.start_s in self.broken:
            return DecodeError("broken here")
        return _description(f"{segment.start_s} to\n\n{segment.end_s}")


def _description(text: str) -> Any:
    return Description(
        text=text,
        plan=None,
        frames=(),
        usage=None,
        finish_reason="stop",
        warnings=(),  # type: ignore[arg-type]  # only the text matters here
    )


@given(st.floats(0, 1e4), st.floats(0.1, 1e5), st.floats(0.5, 1e3), st.floats(0, 0.9))
def test_windows_cover_the_span_without_gaps(
    start_s: float, length_s: float, window_s: float, share: float
) -> None:
    if length_s / (window_s * (1 - share)) > 2000:
        return
    cut = windows(Segment(start_s, start_s + length_s), window_s, share * window_s)
    assert cut[0].start_s == start_s
    assert cut[-1].end_s == start_s + length_s
    for earlier, later in itertools.pairwise(cut):
        assert earlier.start_s < later.start_s <= earlier.end_s + 1e-9


def test_the_last_sliver_joins_its_neighbour() -> None:
    # 61 s in windows of 30 s: [0, 30), [30, 61); a third window would hold one second.
    assert windows(Segment(0, 61), 30, 0) == [Segment(0, 30), Segment(30, 61)]
    assert windows(Segment(0, 65), 30, 0)[-1] == Segment(60, 65)


@pytest.mark.parametrize(("window_s", "overlap_s"), [(0, 0), (10, 10), (10, -1), (float("nan"), 0)])
def test_windows_that_do_not_advance_are_refused(window_s: float, overlap_s: float) -> None:
    with pytest.raises(ConfigError, match="overlap_s < window_s"):
        windows(Segment(0, 100), window_s, overlap_s)


def test_captions_keep_their_times_and_failures_are_warnings() -> None:
    cut = windows(Segment(0, 90), 30, 0)
    model = FakeModel(broken=(30,))
    timeline = model.timeline(cut)
    assert [c.segment for c in timeline.captions] == [Segment(0, 30), Segment(60, 90)]
    assert timeline.coverage == (Segment(0, 30), Segment(60, 90))
    assert timeline.warnings == ("30.00 s to 60.00 s: broken here",)
    assert timeline.summary == "merged 1"
    assert "[60.00s - 90.00s] 60 to 90" in model.merged[0]
    assert json.loads(timeline.to_json())["captions"][1]["start_s"] == 60
    assert "00:01:00.000 --> 00:01:30.000\n60 to 90\n" in timeline.to_vtt()


def test_a_caption_cannot_break_its_cue() -> None:
    caption = Caption(
        segment=Segment(0, 1), text="a --> b & <i>c", description=_description("unused")
    )
    timeline = Timeline(captions=(caption,), summary="", coverage=())
    assert timeline.to_vtt().endswith("\na --&gt; b &amp; &lt;i&gt;c\n")


def test_all_windows_failing_is_the_first_error() -> None:
    with pytest.raises(DecodeError, match="broken here"):
        FakeModel(broken=(0, 30)).timeline(windows(Segment(0, 60), 30, 0))


def test_captions_beyond_the_context_are_merged_in_halves() -> None:
    cut = windows(Segment(0, 240), 10, 0)
    one_line = len("[000.00s - 000.00s] 000 to 000\n")
    model = FakeModel(longest=200 + 8 * one_line)
    timeline = model.timeline(cut)
    assert len(model.merged) > 2
    assert timeline.summary == f"merged {len(model.merged)}"


def test_captions_that_can_never_be_merged_end_in_the_budget_error() -> None:
    with pytest.raises(BudgetError):
        FakeModel(longest=10).timeline(windows(Segment(0, 90), 10, 0))


def test_windows_that_may_pass_are_asked_about_again_and_alone() -> None:
    cut = windows(Segment(0, 8), 2, 0)
    asked: list[list[int]] = []

    def ask(parts: Any) -> Any:
        asked.append([part["window"] for part in parts])
        for number in asked[-1]:
            fails = len(asked) <= {1: 2, 2: 99, 3: 0}.get(number, 0)
            error = CapacityError("full") if number == 1 else DecodeError("broken")
            yield error if fails else _description(f"window {number}")

    waits: list[int] = []
    patience = Patience(
        may_pass=lambda error: isinstance(error, CapacityError),
        wait=lambda tries: waits.append(tries) is None and tries < 5,
    )
    parts = [{"window": number} for number in range(4)]
    timeline = ask_timeline(cut, parts, ask, None, patience)
    assert asked == [[0, 1, 2, 3], [1], [1]]
    assert waits == [1, 2]
    assert [c.text for c in timeline.captions] == ["window 0", "window 1", "window 3"]
    assert timeline.warnings == ("4.00 s to 6.00 s: broken",)
    asked.clear()
    assert len(ask_timeline(cut, parts, ask, None).captions) == 2
    assert len(asked) == 1
