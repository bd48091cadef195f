"""Is an answer over a stream's cache as often right as one over the same frames as a clip?

Clips of the small world that no training saw, each shown as the end of a stream: another scene of
the same size comes before it, so that the window holds the clip and nothing else, while the rows of
its first frames were read beside frames that have left. Every question with choices is asked of the
window and of the clip alone; both are held against the truth. The demo model, two frames a second.
A difference says what reading beside evicted frames costs, which no model was trained for.

    python benchmarks/stream_answers.py [--scenes 60] [--append] [--check]
"""

import dataclasses
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from harness import parser_of, report

from llava_video.api import LlavaVideo, load
from llava_video.live import LiveWindow
from llava_video.world.example import Example, make_example
from llava_video.world.render import render_at
from llava_video.world.splits import split_settings

NUM_SCENES, CHECK_SCENES = 60, 1
LENGTH_S, STEP_S = 6.0, 0.5
_SETTINGS = dataclasses.replace(
    split_settings("heldout"), sizes_px=((256, 256),), rates_hz=(12.0,), lengths_s=(LENGTH_S,)
)
_NUM_FRAMES = int(LENGTH_S / STEP_S)


def main(arguments: list[str] | None = None) -> int:
    """Count what is right either way; return the exit status."""
    parser = parser_of(__doc__)
    parser.add_argument("--scenes", type=int, default=NUM_SCENES)
    options = parser.parse_args(arguments)
    num_scenes = CHECK_SCENES if options.check else options.scenes
    with load("demo") as model:
        pairs = [pair for idx in range(num_scenes) for pair in answers_of(model, idx)]
    row = {"scenes": num_scenes, **counts_of(pairs)}
    for name, value in row.items():
        print(f"{name:24} {value:,.4f}" if isinstance(value, float) else f"{name:24} {value:,}")
    report("stream_answers", row, append=options.append)
    return 0


def answers_of(model: LlavaVideo, idx: int) -> Iterator[tuple[bool, bool, bool]]:
    """Yield of each question whether clip and window are right, and whether they say the same."""
    before, example = (make_example(_SETTINGS, "stream", idx, part) for part in (0, 1))
    clip, times_s = frames_of(example), STEP_S * np.arange(_NUM_FRAMES)
    asked = [(question, {"response_format": question.choices}) for question in example.questions]
    asked = [(question, options) for question, options in asked if question.choices]
    with LiveWindow(model.spec, model.engine, window_frames=_NUM_FRAMES) as window:
        for frame_idx, frame in enumerate([*frames_of(before), *clip]):
            window.add(frame, STEP_S * frame_idx)
        for question, options in asked:
            live = window.ask(question.text, **options).text
            alone = model.ask((clip, times_s), question.text, **options).text
            yield question.is_right(alone), question.is_right(live), alone == live


def frames_of(example: Example) -> np.ndarray:
    """Return the frames of a scene that are shown, (T, 256, 256, 3) uint8."""
    step = round(example.scene.rate_hz * STEP_S)
    return render_at(example.scene, [step * idx for idx in range(_NUM_FRAMES)])


def counts_of(pairs: list[tuple[bool, bool, bool]]) -> dict[str, Any]:
    """Return shares, and the difference with its standard error, of paired answers."""
    num = max(1, len(pairs))
    differences = [live - clip for clip, live, _ in pairs]
    mean = sum(differences) / num
    spread = sum((difference - mean) ** 2 for difference in differences) / num
    return {
        "questions": len(pairs),
        "right_as_clip": sum(clip for clip, _, _ in pairs) / num,
        "right_as_window": sum(live for _, live, _ in pairs) / num,
        "same_answer": sum(same for _, _, same in pairs) / num,
        "difference": mean,
        "standard_error": math.sqrt(spread / num),
    }


if __name__ == "__main__":
    sys.exit(main())
