"""Ctrl-C, or the system's wish to end → an event for those who finish what is under way."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from llava_video.cli.console import Console

# What a shell reports of a program that Ctrl-C ended.
INTERRUPTED = 130


@contextmanager
def stopping(console: Console) -> Iterator[threading.Event]:
    """Give an event that Ctrl-C, or the system's wish to end, sets; the second one raises.

    Args:
        console: says, the first time, that a second one stops at once.

    Raises:
        KeyboardInterrupt: inside, at the second signal.
    """
    stop, woken = threading.Event(), threading.Event()

    def on_signal(number: int, frame: object) -> None:
        del number, frame
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        woken.set()

    def tell() -> None:
        woken.wait()
        if stop.is_set():
            console.warn(["finishing what is under way; once more stops at once."])

    # A handler may interrupt this very thread in the midst of a line, and must not write then.
    teller = threading.Thread(target=tell, name="llava-video stopping", daemon=True)
    teller.start()
    handled = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, on_signal) for number in handled}
    try:
        yield stop
    finally:
        woken.set()
        teller.join()
        for number, handler in before.items():
            signal.signal(number, handler)
