"""What a user may set about reading a source: whom a download may ask, and its limits.

Knows no decoder; how many frames are read is the planner's business.
"""

from dataclasses import dataclass

from llava_video.config import check, setting


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
