"""What a user may set about reading: whom a download may ask, and limits of it and of a sandbox.

Knows no decoder; how many frames are read is the planner's business.
"""

from dataclasses import dataclass
from typing import Literal

from llava_video.config import check, setting

BackendName = Literal["auto", "decord", "pyav", "torchcodec"]


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
