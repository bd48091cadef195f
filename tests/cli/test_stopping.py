"""The first signal asks to end, the second one ends, and what was handled before is again."""

import os
import signal
import threading

import pytest

from llava_video.cli.console import Console
from llava_video.cli.stopping import stopping


class Noting(Console):
    """Notes which thread writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: list[threading.Thread] = []

    def warn(self, *_: object, **__: object) -> None:
        self.writers.append(threading.current_thread())


def test_the_handler_itself_writes_nothing() -> None:
    console = Noting()
    with stopping(console):
        pass
    assert console.writers == []
    with stopping(console):
        os.kill(os.getpid(), signal.SIGINT)
    assert len(console.writers) == 1
    assert console.writers[0] is not threading.main_thread()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_and_the_second_raises(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    with stopping(Console()) as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert "once more stops at once" in capsys.readouterr().err
    assert {one: signal.getsignal(one) for one in before} == before
