"""Describe many videos, several at once; one that cannot be read stops nobody."""

import argparse

from llava_video import LlavaVideoError, load
from llava_video.demo.sample import sample_clip


def main() -> None:
    """Describe two good requests and a bad one, and tell them apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--demo", action="store_true", help="the sample clip, the packaged model")
    given = parser.parse_args()
    if given.demo:
        given.video, given.model = sample_clip(), "demo"

    requests = [
        given.video,
        {"video": given.video, "prompt": "Is there a cross?", "end": 2.0},
        "no_such_file.mp4",
    ]
    with load(given.model) as model:
        for answer in model.batch(requests, on_error="return", max_new_tokens=60):
            if isinstance(answer, LlavaVideoError):
                print(f"failed: {answer.message}\n        {answer.hint}")
            else:
                print(f"{len(answer.frames)} frames: {answer.text}\n")


if __name__ == "__main__":
    main()
