"""A run in a process of its own, for tests that kill it: `archive_child.py CHECKPOINT CLIPS OUT`.

The engine is the oracle, a little slow, so that there is something to kill.
"""

import sys

from archive_runs import QUESTION, Slow

from llava_video.api import LlavaVideo, load
from llava_video.archive.runner import run_archive
from llava_video.archive.settings import ArchiveSettings


def main() -> int:
    """Run, and say when the first unit may be begun."""
    checkpoint, clips, out, sandbox = sys.argv[1:]
    settings = ArchiveSettings(
        task="ask",
        prompts=(QUESTION,),
        sandbox=sandbox == "sandbox",
        in_flight=4,
        shard_units=16,
    )
    with load(checkpoint, device="cpu") as model:
        print("loaded", flush=True)
        slow = LlavaVideo(model.spec, Slow(model.spec, 0.01))
        return run_archive(
            clips, out, settings=settings, model=slow, max_new_tokens=64
        ).exit_status


if __name__ == "__main__":
    sys.exit(main())
