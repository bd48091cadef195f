"""A program that runs an archive with two worker processes; says what it has done and imported."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_video.archive.runner import run_archive
from llava_video.archive.settings import ArchiveSettings


@dataclass(frozen=True)
class Slow:
    """Loads the slow oracle, in a process that has torch."""

    checkpoint: Path
    seconds: float

    def __call__(self) -> Any:
        from archive_runs import slow_model

        return slow_model(self.checkpoint, self.seconds)


def main(clips: str, out: str, checkpoint: str, seconds: str) -> None:
    settings = ArchiveSettings(
        task="ask", prompts=("Which indices are shown?",), sandbox=False, in_flight=4,
        shard_units=16, workers=2,
    )  # fmt: skip
    # By its module's name: other processes know no __main__.
    from archive_program import Slow as Model

    model = Model(Path(checkpoint), float(seconds))
    summary = run_archive(clips, out, settings=settings, model=model, max_new_tokens=64)
    print(summary.progress.done, "with torch" if "torch" in sys.modules else "torch-free")


if __name__ == "__main__":
    main(*sys.argv[1:])
