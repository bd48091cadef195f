"""The cameras of a watch → one sequence of events, with where each stands and why one ended."""

from collections.abc import Callable, Mapping
from typing import Protocol

from llava_video.errors import LlavaVideoError
from llava_video.video.settings import StreamSettings
from llava_video.video.stream import StreamGroup
from llava_video.video.stream_events import Mark, StreamFrame, StreamStatus


class Streams(Protocol):
    """What a watch takes events from; `StreamGroup` is one."""

    @property
    def is_over(self) -> bool:
        """Whether no event will come."""
        ...

    def next(self, timeout_s: float | None = None) -> tuple[str, StreamFrame | Mark] | None:
        """Return the next event and whose it is; None when none came in time."""
        ...

    def statuses(self) -> Mapping[str, StreamStatus]:
        """Say where each stands."""
        ...

    def errors(self) -> Mapping[str, LlavaVideoError]:
        """Return why streams ended, of those that ended with an error."""
        ...

    def close(self) -> None:
        """End all of them."""
        ...


class CameraStreams:
    """Real cameras and recordings.

    Args:
        streams: name -> (address, settings).

    Raises:
        SourceError: an address is of an unknown kind, or names a file that is not there.
    """

    def __init__(self, streams: Mapping[str, tuple[str, StreamSettings]]) -> None:
        self._group = StreamGroup(streams)
        self.next, self.close = self._group.next, self._group.close

    @property
    def is_over(self) -> bool:
        """See `Streams`."""
        return self._group.is_over

    def statuses(self) -> Mapping[str, StreamStatus]:
        """See `Streams`."""
        return {name: stream.status() for name, stream in self._group.streams.items()}

    def errors(self) -> Mapping[str, LlavaVideoError]:
        """See `Streams`."""
        found = {name: stream.error for name, stream in self._group.streams.items()}
        return {name: error for name, error in found.items() if error is not None}


OpenStreams = Callable[[Mapping[str, tuple[str, StreamSettings]]], Streams]
