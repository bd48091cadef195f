"""When a video's frames were seen → the sentence of the prompt that says so.

The sentence is a constant of the training: byte-exact, two decimals, no space after the comma.
Knows no tokenizer and no template.
"""

from dataclasses import dataclass

from llava_video.plan_table import ordinal
from llava_video.values import VisualPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeNote:
    """What the time sentence states about one video.

    Attributes:
        duration_s: length of the video, s.
        num_frames: frames the model is given.
        times_s: their times, s, one per frame.
        every: 1 lists every time; k lists the times of frames 0, k, 2k, …
    """

    duration_s: float
    num_frames: int
    times_s: tuple[float, ...]
    every: int = 1

    def sentence(self) -> str:
        """Return the sentence.

        Source: LLaVA-NeXT, docs/LLaVA_Video_1003.md and the training data; the wording with
        `every` > 1 is ours.

        >>> TimeNote(duration_s=10, num_frames=2, times_s=(0.0, 9.967)).sentence()[:73]
        'The video lasts for 10.00 seconds, and 2 frames are uniformly sampled fro'
        """
        times = ",".join(f"{time_s:.2f}s" for time_s in self.times_s[:: self.every])
        listed = (
            "These frames are located at"
            if self.every == 1
            else f"Every {ordinal(self.every)} of these frames is located at"
        )
        return (
            f"The video lasts for {self.duration_s:.2f} seconds, and {self.num_frames} frames are "
            f"uniformly sampled from it. {listed} {times}."
            "Please answer the following questions related to this video."
        )


def time_note(visual: VisualPlan) -> TimeNote | None:
    """Return the note a planned visual was counted with; None when it has none."""
    if not visual.note_every or visual.duration_s is None:
        return None
    return TimeNote(
        duration_s=visual.duration_s,
        num_frames=visual.num_frames,
        times_s=visual.times_s,
        every=visual.note_every,
    )
