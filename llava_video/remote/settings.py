"""How a server is spoken to: what frames are sent as, and how long it is waited for."""

from dataclasses import dataclass
from typing import Any, Literal

from llava_video.config import check, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSettings:
    """How frames go to a server, and how patient its callers are."""

    picture: Literal["jpeg", "png"] = setting(
        "jpeg", "What frames are sent as; png loses nothing and is several times larger."
    )
    jpeg_quality: int = setting(
        95, "Of JPEG, without thinning of colours from 90 on.", at_least=1, at_most=100
    )
    frame_px: int | Literal["auto", "whole"] = setting(
        "auto",
        "The shorter side that larger frames are reduced to before they are sent; auto leaves what "
        "the plan's tiles would see, whole sends frames as they are.",
        unit="px",
        at_least=1,
    )
    sends: Literal["images", "video"] = setting(
        "images",
        "Whether a video's frames go as so many pictures, which every server takes, or as one "
        "video_url of JPEG frames, which vLLM takes.",
    )
    max_running: int = setting(
        16, "Requests at the server at once, over all threads.", unit="requests", at_least=1
    )
    max_body_bytes: int = setting(
        2**26,
        "Longest request; memory holds max_running of them.",
        unit="bytes",
        at_least=1,
    )
    kept_bytes: int = setting(
        2**27,
        "Encoded frames that are kept for other questions about the same ones.",
        unit="bytes",
        at_least=0,
    )
    connect_s: float = setting(10.0, "Longest wait for a connection.", unit="s", above=0)
    silence_s: float = setting(
        300.0, "Longest silence of a server that has work to do.", unit="s", above=0
    )
    retry_for_s: float = setting(
        120.0,
        "How long a request is tried again, from its first failure on, when there is no room (429, "
        "503), the connection breaks or the server is away; then it fails.",
        unit="s",
        at_least=0,
    )
    retry_wait_s: float = setting(
        0.5,
        "First wait between two tries, doubled each time, jittered; Retry-After makes it longer.",
        unit="s",
        above=0,
    )
    max_retry_wait_s: float = setting(
        30.0, "Longest wait of ours between two tries.", unit="s", above=0
    )
    length_field: Literal["max_tokens", "max_completion_tokens"] = setting(
        "max_tokens", "What the server calls the longest answer; OpenAI's newer models the second."
    )
    key_variable: str = setting(
        "LLAVA_VIDEO_API_KEY", "The environment variable that holds the key, where one is needed."
    )
    proxies: bool = setting(
        False, "Whether the environment's proxies (HTTPS_PROXY, NO_PROXY, ...) are used."
    )

    def __post_init__(self) -> None:
        check(self)

    def of_frames(self) -> dict[str, Any]:
        """Return what decides how frames reach the server, and so its answers, in plain values."""
        facts: dict[str, Any] = {"sends": self.sends, "frame_px": self.frame_px}
        if self.sends == "video" or self.picture == "jpeg":
            return facts | {"picture": "jpeg", "jpeg_quality": self.jpeg_quality}
        return facts | {"picture": self.picture}
