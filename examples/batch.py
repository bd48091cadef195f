"""Describe many videos, several at once; one that cannot be read stops nobody."""

import argparse

from llava_video import LlavaVideoError, load
from llava_video.demo.files import passing_demo_files


def main() -> None:
    """Describe two good requests and a bad one, and tell them apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--tiny", action="store_true", help="a made-up clip and a random model")
    given = parser.parse_args()
    if given.tiny:
        files = passing_demo_files()
        given.video, given.model = files.clip, files.model

    requests = [
        given.video,
        {"video": given.video, "prompt": "What is in the first second?", "end": 1.0},
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
