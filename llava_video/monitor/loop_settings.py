"""What a user may set about the loop of a watch: queues, the trace, evidence and how it ends."""

from dataclasses import dataclass

from llava_video.config import check, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """Room and patience of the loop between cameras and the model."""

    queue_windows: int = setting(
        4,
        "Windows of one camera that wait for the model; above it the oldest is dropped, counted "
        "and traced. An answer that comes later than this many windows helps nobody.",
        at_least=1,
    )
    queue_updates: int = setting(
        16,
        "Alerts that wait for their description; above it the oldest gets its frames alone.",
        at_least=1,
    )
    evidence_frames: int = setting(
        12, "Frames of an alert's sheet, from before the window and of it.", at_least=1, at_most=64
    )
    with_clip: bool = setting(False, "Whether the frames are kept as a video too.")
    describes: bool = setting(
        True, "Whether the model is asked to describe an alert's window, for its update."
    )
    trace_bytes: int = setting(
        16 * 2**20, "Size of a file of the trace; then a new one is begun.", unit="bytes",
        at_least=4096,
    )  # fmt: skip
    trace_files: int = setting(
        8, "Files of the trace that are kept, the one being written included.", at_least=1
    )
    tend_every_s: float = setting(
        10.0, "How often states are stored and what is outlived goes.", unit="s", above=0
    )
    stop_s: float = setting(
        10.0, "How long a stopped watch waits for what is under way.", unit="s", at_least=0
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self, is_finite=True)
