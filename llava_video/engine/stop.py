"""Pieces of streamed text → pieces that may be shown: no stop string, no blanks at either end.

The shown pieces joined are the answer's text: what was said before the first stop string, without
leading or trailing white space, whatever the borders of the pieces were. The stop string that is
complete first ends the text; of several complete at the same character, the longest. Knows no
tokens.
"""

from collections.abc import Sequence


class StopText:
    """Holds back what could still become a stop string or trailing white space.

    Args:
        stop: strings that end the text; none empty.

    Attributes:
        stopped: whether a stop string was seen; later pieces are ignored.

    Example:
        >>> text = StopText(["END"])
        >>> [text.push(piece) for piece in ("  a b ", "EN", "D c")], text.finish()
        (['a b', '', ''], '')
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self._shown = False
        self.stopped = False

    def push(self, piece: str) -> str:
        """Take the next piece of the text; return what may be shown now, perhaps ""."""
        if self.stopped:
            return ""
        text = self._held + piece
        cut = self._first_stop(text)
        if cut is not None:
            self.stopped = True
            self._held = ""
            return self._show(text[:cut])[0]
        safe = text[: len(text) - self._num_unsure(text)]
        shown, blanks = self._show(safe)
        self._held = blanks + text[len(safe) :]
        return shown

    def finish(self) -> str:
        """Say that no piece follows; return what is left to show."""
        shown, _ = self._show(self._held)
        self._held = ""
        return shown

    def _show(self, text: str) -> tuple[str, str]:
        """Split text into what is shown and the white space at its end."""
        if not self._shown:
            text = text.lstrip()
        shown = text.rstrip()
        self._shown = self._shown or bool(shown)
        return shown, text[len(shown) :]

    def _first_stop(self, text: str) -> int | None:
        """Return where the stop string that is complete first begins, or None."""
        found = [(text.find(stop) + len(stop), -len(stop)) for stop in self._stop if stop in text]
        if not found:
            return None
        end, minus_length = min(found)
        return end + minus_length

    def _num_unsure(self, text: str) -> int:
        """Return the length of the longest end of the text that begins a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop if len(stop) > length):
                return length
        return 0
