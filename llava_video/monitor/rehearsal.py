"""Recordings and rules → what would have been told, faster than real time, on a virtual clock.

The same gate, windows, reuse and rules as a watch; every window is judged, none is dropped, nobody
is told. With labels: precision, recall and delay, and why each label was missed. Answers are kept,
so that thresholds are tried without asking again.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from llava_video.errors import LlavaVideoError, SourceError
from llava_video.monitor.feed import CameraFeed
from llava_video.monitor.judge import Judge, Judged
from llava_video.monitor.labels import Label
from llava_video.monitor.questions import AskWindow
from llava_video.monitor.rules import Decision, Observation, Why
from llava_video.monitor.scoring import (
    THRESHOLDS,
    Alert,
    CurvePoint,
    Score,
    score_alerts,
    threshold_curve,
)
from llava_video.monitor.settings import WatchSettings
from llava_video.monitor.trace import WhyTrace
from llava_video.video.settings import StreamSettings
from llava_video.video.stream import open_stream
from llava_video.video.stream_address import is_live, shown_address
from llava_video.video.stream_events import Mark, StreamFrame

_WORDS = {Why.REUSED: "answered no, as before"}

# Opens a recording for its events, in order, until there are no more.
Events = Callable[[str, StreamSettings], "EventSource"]


class EventSource:
    """The events of one recording.

    Args:
        address: the file.
        settings: how it is read.
    """

    def __init__(self, address: str, settings: StreamSettings) -> None:
        self._stream = open_stream(address, settings)

    def next(self) -> StreamFrame | Mark | None:
        """Return the next event; None when there are no more."""
        return self._stream.next()

    @property
    def error(self) -> LlavaVideoError | None:
        """Why it ended early."""
        return self._stream.error

    def close(self) -> None:
        """End it."""
        self._stream.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What would have been told.

    Attributes:
        started_s: wall clock of the recordings' first frame, s since 1970.
        seconds: length of the longest recording, s.
        seen: what was observed, by rule and camera.
        decisions: all of them, camera by camera.
        windows: how many of each kind, see `Judged.kind`.
        num_frames: frames looked at.
        questions: that were asked.
        model_s: what the model took, s.
    """

    started_s: float
    seconds: float
    seen: Mapping[str, Mapping[str, Sequence[Observation]]]
    decisions: Sequence[Decision]
    windows: Mapping[str, int]
    num_frames: int
    questions: int
    model_s: float

    @property
    def alerts(self) -> list[Alert]:
        """Alerts on the labels' clock."""
        return [
            Alert(rule=one.rule, camera=one.camera, at_s=one.at_s - self.started_s)
            for one in self.decisions
            if one.signal == "raised"
        ]

    def scores(self, labels: Sequence[Label], slack_s: float) -> dict[str, Score]:
        """Score the alerts, by rule and in all ("")."""
        return score_alerts(self.alerts, labels, slack_s=slack_s)

    def curve(
        self,
        settings: WatchSettings,
        labels: Sequence[Label],
        slack_s: float,
        *,
        thresholds: Sequence[float] = THRESHOLDS,
        needed: Sequence[tuple[int, int]] = ((1, 1), (2, 3)),
    ) -> dict[str, list[CurvePoint]]:
        """Score each rule whose answers have a confidence over thresholds, without asking again.

        Args:
            settings: the rules.
            labels: on the recordings' clock.
            slack_s: as `scores`.
            thresholds: least probabilities to try.
            needed: hits, and among how many, to try; the rule's own are tried too.
        """
        points = {}
        for rule in settings.rules:
            if not rule.answer.has_confidence:
                continue
            # Schedules mean the wall clock, so the labels are brought there.
            own = [
                replace(one, start_s=one.start_s + self.started_s, end_s=one.end_s + self.started_s)
                for one in labels
                if one.rule == rule.name
            ]
            tried = dict.fromkeys([(rule.hits, rule.hits_of), *needed])
            points[rule.name] = threshold_curve(
                rule, self.seen[rule.name], own, thresholds, needed=list(tried), slack_s=slack_s
            )
        return points

    def silence(self, label: Label, slack_s: float) -> str:
        """Say in one line why a label was not told of: what its windows came to."""
        start_s, end_s = label.start_s + self.started_s, label.end_s + self.started_s + slack_s
        whys = Counter(
            _WORDS.get(one.why, str(one.why))
            + ("" if one.confidence is None else f" ({one.confidence:.0%})")
            for one in self.decisions
            if one.rule == label.rule
            and label.camera in ("", one.camera)
            and one.start_s < end_s
            and start_s < one.at_s
        )
        words = [why if number == 1 else f"{why}, {number} times" for why, number in whys.items()]
        return "; ".join(words) or "no window"


def rehearse(
    settings: WatchSettings,
    ask: AskWindow,
    *,
    starts_at_s: float | None = None,
    trace: WhyTrace | None = None,
    clock: Callable[[], float],
    on_judged: Callable[[Judged], None] = lambda judged: None,
    events: Events = EventSource,
) -> Rehearsal:
    """Run rules over recordings.

    Args:
        settings: the cameras' addresses are files; all begin at the same time.
        ask: answers the questions of a window.
        starts_at_s: wall clock of the first frame, s since 1970, which schedules go by; None takes
            what the first file says of itself.
        trace: a line for every window and rule.
        clock: measures the model, s.
        on_judged: told of every window.
        events: opens a recording; for tests.

    Raises:
        SourceError: a file is not there, or it is a stream. DecodeError: it cannot be read to
            its end.
    """
    for camera in settings.cameras:
        _check_recording(camera.address)
    judge = Judge(settings, ask, trace=trace, clock=clock)
    judged: list[Judged] = []
    num_frames, seconds = 0, 0.0
    for camera in settings.cameras:
        feed = CameraFeed(camera)
        source = events(camera.address, camera.stream_settings("fast", starts_at_s=starts_at_s))
        try:
            while (event := source.next()) is not None:
                if isinstance(event, StreamFrame):
                    if starts_at_s is None:
                        starts_at_s = event.wall_s - event.pts_s
                    seconds = max(seconds, event.pts_s)
                elif trace is not None:
                    trace.befell(camera.name, event.kind, event.wall_s, event.text)
                for job in feed.take(event):
                    judged.append(judge.judge(job))
                    on_judged(judged[-1])
            for job in feed.finish():
                judged.append(judge.judge(job))
                on_judged(judged[-1])
            if source.error is not None:
                raise source.error
        finally:
            source.close()
        num_frames += feed.num_frames
    return _rehearsal(settings, judged, starts_at_s or 0.0, seconds, num_frames)


def _rehearsal(
    settings: WatchSettings,
    judged: Sequence[Judged],
    started_s: float,
    seconds: float,
    num_frames: int,
) -> Rehearsal:
    seen: dict[str, dict[str, list[Observation]]] = {rule.name: {} for rule in settings.rules}
    for one in judged:
        for rule, observation in one.seen.items():
            seen[rule].setdefault(one.camera, []).append(observation)
    return Rehearsal(
        started_s=started_s,
        seconds=seconds,
        seen=seen,
        decisions=[decision for one in judged for decision in one.decisions],
        windows=Counter(one.kind for one in judged),
        num_frames=num_frames,
        questions=sum(one.num_asked for one in judged),
        model_s=sum(one.model_s for one in judged),
    )


def _check_recording(text: str) -> None:
    """Refuse a stream; that a file is there is seen when it is opened.

    Raises:
        SourceError: it is one.
    """
    if is_live(text):
        raise SourceError(
            f"{shown_address(text)} is no recording: it would never end.",
            "give a file; without --replay a watch reads streams.",
        )
