"""What a user may set about reading: whom a download may ask, limits of a sandbox, a stream.

Knows no decoder; how many frames are read is the planner's business.
"""

from dataclasses import dataclass
from typing import Literal

from llava_video.config import check, setting
from llava_video.errors import ConfigError

BackendName = Literal["auto", "decord", "pyav", "torchcodec"]
Pace = Literal["real", "fast", "follow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """Whom a download may ask, and its limits; each ends it with a `SourceError`."""

    max_bytes: int = setting(
        4 * 2**30, "Largest file fetched; 4 GiB holds hours of 1080p.", unit="bytes", at_least=1
    )
    timeout_s: float = setting(
        300.0, "Longest a whole download may take, redirects included.", unit="s", above=0
    )
    max_redirects: int = setting(
        5, "Redirects followed; a chain longer than this is a loop in practice.", at_least=0
    )
    allow_private: bool = setting(
        False,
        "Fetch from private, loopback and link-local addresses too, and through the environment's "
        "proxies; off, a URL from a stranger reaches nothing inside the own network.",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self)


def more_of(limit: str) -> str:
    """Say for a hint how a limit of the sandbox is raised.

    In quotes, since the command line has no option for it.

    >>> more_of("max_pixels")
    "in Python, 'sandbox=SandboxSettings(max_pixels=…)' allows more"
    """
    return f"in Python, 'sandbox=SandboxSettings({limit}=…)' allows more"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """Limits of decoding in worker processes; each ends a video with a `DecodeError`.

    Time counts while somebody waits for the worker, not while the worker waits for him.
    """

    stall_timeout_s: float = setting(
        30.0,
        "Longest silence of a worker that is waited for; one that makes progress says so twice a "
        "second.",
        unit="s",
        above=0,
    )
    video_timeout_s: float = setting(
        600.0,
        "Longest a video may be waited for in all; a two-hour film at one frame a second takes "
        "less on two cores.",
        unit="s",
        above=0,
    )
    max_memory_bytes: int = setting(
        4 * 2**30,
        "Address space a worker may take beyond its own start; 8K on 16 threads fits. Linux only.",
        unit="bytes",
        at_least=2**26,
    )
    max_pixels: int = setting(
        2**26,
        "Pixels of one frame, asked before any is decoded; 8K has half of it. Frames that "
        "are larger later on are left out.",
        at_least=1,
    )
    max_walked_frames: int = setting(
        1_000_000,
        "Frames of one reading that are decoded, those between the ones asked for included; nine "
        "hours at 30 a second.",
        at_least=1,
    )
    max_read_bytes: int = setting(
        64 * 2**30, "Bytes read of one video, repeats included. Linux only.", unit="bytes", above=0
    )
    videos_per_worker: int = setting(
        100, "Videos after which a worker is replaced, so that nothing leaks for long.", at_least=1
    )
    num_workers: int = setting(2, "Videos open at once, a worker each.", at_least=1)
    wait_timeout_s: float = setting(
        60.0, "Longest wait for a free worker, then a `CapacityError`.", unit="s", at_least=0
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How a camera, or a recording in its place, is watched: rate, patience, room.

    Seconds are of the wall clock where a stream is live, of the recording where it is read fast.
    """

    fps: float | None = setting(
        1.0,
        "Pictures taken a second, by the stream's own clock; None takes all. What people ask about "
        "lasts longer than a second, mostly.",
        unit="Hz",
        above=0,
    )
    pace: Pace = setting(
        "real",
        "How a file is read: as fast as it was recorded, as fast as its pictures are taken (none "
        "is dropped), or on and on while it grows. Cameras come as they come.",
    )
    starts_at_s: float | None = setting(
        None,
        "Wall clock, in seconds since 1970, of a recording's first picture; None takes now where "
        "it is read at its own speed, and what the file says of itself where it is read fast.",
        unit="s",
    )
    transport: Literal["tcp", "udp"] = setting(
        "tcp", "What RTSP brings pictures by; over UDP some are lost where a network is busy."
    )
    keyframes_only: bool = setting(
        False, "Decode keyframes alone: a fraction of the work, and one picture each few seconds."
    )
    open_timeout_s: float = setting(
        10.0,
        "Longest wait for a camera to answer and to show its first pictures.",
        unit="s",
        above=0,
    )
    stall_timeout_s: float = setting(
        15.0,
        "Longest silence before a connection is given up; HLS brings pictures once a segment, "
        "mostly 2 to 10 s.",
        unit="s",
        above=0,
    )
    first_wait_s: float = setting(
        1.0, "Wait before the second try; each next one is twice as long.", unit="s", above=0
    )
    most_wait_s: float = setting(60.0, "Longest wait between two tries.", unit="s", above=0)
    frozen_s: float | None = setting(
        60.0,
        "From when on equal pictures, pixel for pixel, are told as frozen; a sensor's noise is "
        "never twice the same. None does not look.",
        unit="s",
        above=0,
    )
    gap_s: float = setting(
        2.0, "Hole in a stream's own time from which on it is told.", unit="s", above=0
    )
    max_jump_s: float = setting(
        10.0,
        "A step of a stream's clock that is longer than the wait for it by this much is no time "
        "that passed: the clock was set.",
        unit="s",
        above=0,
    )
    late_s: float = setting(
        10.0, "Delay, against the quickest pictures, from which on it is told.", unit="s", above=0
    )
    queue_frames: int = setting(
        16, "Pictures that wait to be taken; the oldest is dropped, and counted.", at_least=1
    )
    queue_bytes: int = setting(
        2**28, "What those pictures may take; one always may.", unit="bytes", at_least=1
    )
    max_side_px: int = setting(
        1920, "Longest side of a picture; larger ones are scaled down.", unit="px", at_least=16
    )
    max_pixels: int = setting(
        2**26, "Pixels of a picture that is decoded at all; 8K has half of it.", at_least=1
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self)
        if self.first_wait_s > self.most_wait_s:
            raise ConfigError(
                f"first_wait_s = {self.first_wait_s:g} is longer than most_wait_s = "
                f"{self.most_wait_s:g}.",
                "the first wait is the shortest.",
            )
