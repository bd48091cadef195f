"""The first signal asks to end, the second one ends, and what was handled before is again."""

import os
import signal

import pytest

from llava_video.cli.console import Console
from llava_video.cli.stopping import stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_and_the_second_raises(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    with stopping(Console()) as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        assert "once more stops at once" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert {one: signal.getsignal(one) for one in before} == before
