"""What a person sees: an alert of the stream stands on the page, with its picture, at once."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import chromium
import pytest
from watch_footage import START_S, FakeStreams, picture_of, settings_of

from llava_video.errors import CapacityError
from llava_video.monitor.questions import WindowAnswers, WindowFrames
from llava_video.monitor.rules import Observation, Rule
from llava_video.monitor.watch import Asker, run_watch
from llava_video.video.stream_events import StreamFrame
from llava_video.world.bars import read_index

EVIL = '<b id="evil">gate</b><script>document.title = "evil"</script>'

needs_chromium = pytest.mark.skipif(chromium.find() is None, reason="chromium is not installed")


def frames(states: Sequence[int], first: int = 0) -> Iterator[StreamFrame]:
    for second, state in enumerate(states, first):
        picture = picture_of(state).astype("uint8")
        yield StreamFrame(idx=second, picture=picture, pts_s=float(second), wall_s=START_S + second)


def bars(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
    index = read_index(window.frames[-1])
    if index & 2:
        raise CapacityError(f"{EVIL} has no server.")
    value = "yes" if index & 1 else "no"
    seen = {
        rule.name: Observation(
            start_s=window.start_s, at_s=window.end_s, confidence=0.9,
            value=value if rule.name == "object" else 0,
        )
        for rule in rules
    }  # fmt: skip
    return WindowAnswers(observations=seen, num_asked=len(rules), reused_tokens=0, seconds={})


@needs_chromium
def test_an_alert_stands_on_the_page_within_two_seconds(tmp_path: Path) -> None:
    address: list[str] = []
    raise_it, fail_it, over = threading.Event(), threading.Event(), threading.Event()
    raised_s: list[float] = []

    def events() -> Iterator[StreamFrame]:
        yield from frames([0] * 8)
        assert raise_it.wait(120)
        raised_s.append(time.monotonic())
        yield from frames([1] * 5, 8)
        assert fail_it.wait(120)
        yield from frames([2] * 8, 13)
        assert over.wait(120)
        yield from frames([1], 21)

    def note(camera: str, text: str) -> None:
        if text.startswith("page: "):
            address.append(text.removeprefix("page: "))

    settings = settings_of((EVIL,), window_s=4, step_s=4)
    asker = Asker(ask=bars, describe=lambda window: (f"{EVIL} is described", ()))

    def watch() -> None:
        run_watch(
            settings, asker, tmp_path / "watch", environ={}, page=("127.0.0.1", 0), on_note=note,
            open_streams=lambda _: FakeStreams({EVIL: events()}),
        )  # fmt: skip

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        while not address:
            time.sleep(0.01)
        with chromium.Chromium(tmp_path / "profile") as browser:
            browser.open(address[0])
            shown = "document.querySelector('#cameras img')?.naturalWidth"
            assert browser.wait(shown, 60) == 160  # the last frame
            assert browser.value("document.querySelectorAll('#alerts li').length") == 0
            raise_it.set()
            picture = "document.querySelector('#alerts li img')?.naturalWidth"
            assert browser.wait(picture, 20) == 160
            took_s = time.monotonic() - raised_s[0]
            described = "document.querySelector('#alerts')?.textContent.includes('is described')"
            assert browser.wait(described, 20)
            words = browser.value("document.querySelector('#cameras h3').textContent")
            assert words == EVIL  # text, and nothing else
            assert browser.value("document.querySelector('#evil')") is None
            assert browser.value("document.title") == "llava-video watch"
            fail_it.set()
            _shows_failures(browser)
            over.set()
            ended = "document.querySelector('#state').textContent === 'ended'"
            assert browser.wait(ended, 20)
    finally:
        for event in (raise_it, fail_it, over):
            event.set()
        thread.join(30)
    assert took_s < 2.0


def _shows_failures(browser: chromium.Chromium) -> None:
    """Wait for two windows without an answer, and for why, as text."""
    facts = "document.querySelector('#cameras dl').textContent"
    assert browser.wait(f"{facts}.includes('failed2')", 20)
    problem = browser.value("document.querySelector('#cameras .problem').textContent")
    assert problem == f"no answer: {EVIL} has no server."
