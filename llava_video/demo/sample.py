"""Nothing → the sample clip of the small world, the same on every machine, and the truth about it.

The scene is none that a model is trained on: 256 x 256 px is no size of the training split, and two
scenes of different sizes have not one frame in common. Knows no model.
"""

import atexit
import dataclasses
import json
import shutil
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from llava_video.errors import SourceError
from llava_video.files import replacing
from llava_video.world.clip import write_clip
from llava_video.world.example import PROMPTS, Example, make_example, records
from llava_video.world.question import Question
from llava_video.world.render import iter_frames
from llava_video.world.splits import split_settings

CLIP_FILE: Final = "demo_clip.mp4"
TRUTH_FILE: Final = "demo_truth.json"
CAPTION_PROMPT: Final = PROMPTS["timed"][0]

# A draw with three objects, five events, and questions that the packaged model has right: a
# newcomer sees what works. How often it does is on the model's card.
_NAMES: Final = ("demo", 0, 227)
_SETTINGS: Final = dataclasses.replace(
    split_settings("heldout"), sizes_px=((256, 256),), rates_hz=(12.0,), lengths_s=(9.0,)
)
_ASKED: Final = ("direction", "order")
_CODEC: Final = {"preset": "veryfast"}


@dataclass(frozen=True, slots=True)
class Sample:
    """The sample clip and what is true of it.

    Attributes:
        clip: the video file.
        example: its scene, captions and questions.
    """

    clip: Path
    example: Example

    @property
    def caption(self) -> str:
        """What happens, a line a moment: the right answer to `CAPTION_PROMPT`."""
        return self.example.captions["timed"]

    @property
    def questions(self) -> tuple[Question, ...]:
        """The two questions of the demo, with their answers."""
        by_kind = {question.kind: question for question in self.example.questions}
        return tuple(by_kind[kind] for kind in _ASKED)


def write_sample(folder: str | Path) -> Sample:
    """Write the clip and its truth as records of a LLaVA data file; those there are replaced.

    Args:
        folder: made when it is not there.

    Raises:
        SourceError: it cannot be made or written to.
        BackendMissingError: without PyAV.
    """
    folder = Path(folder)
    example = make_example(_SETTINGS, *_NAMES)
    scene = example.scene
    truth = json.dumps(records(example, "demo", CLIP_FILE), indent=1, ensure_ascii=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / CLIP_FILE) as unfinished:
            write_clip(
                unfinished,
                iter_frames(scene),
                frame_rate_hz=Fraction(scene.rate_hz).limit_denominator(1000),
                codec_options={"crf": str(scene.crf), **_CODEC},
            )
        with replacing(folder / TRUTH_FILE) as unfinished:
            unfinished.write_text(truth + "\n", encoding="utf-8")
    except OSError as cause:
        raise SourceError(
            f"the sample cannot be written to {folder}: {cause.strerror or cause}.",
            "name another folder.",
        ) from cause
    return Sample(folder / CLIP_FILE, example)


def sample_clip() -> Path:
    """Write the sample to a folder that goes when the program ends; return its video."""
    folder = tempfile.mkdtemp(prefix="llava_video_demo_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_sample(folder).clip
