"""Show an answer while it is written, and what it rests on afterwards."""

import argparse

from llava_video import load
from llava_video.demo.files import passing_demo_files


def main() -> None:
    """Print pieces of text as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--tiny", action="store_true", help="a made-up clip and a random model")
    given = parser.parse_args()
    if given.tiny:
        files = passing_demo_files()
        given.video, given.model = files.clip, files.model

    with load(given.model) as model:
        stream = model.stream(given.video, "Tell what happens, step by step.", max_new_tokens=100)
        for piece in stream:
            print(piece, end="", flush=True)
        answer = stream.description

    print(f"\n\n{answer.usage.new_tokens} tokens from {len(answer.frames)} frames")


if __name__ == "__main__":
    main()
