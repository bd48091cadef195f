"""Show an answer while it is written, and what it rests on afterwards."""

import argparse

from llava_video import load
from llava_video.demo.sample import sample_clip


def main() -> None:
    """Print pieces of text as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--demo", action="store_true", help="the sample clip, the packaged model")
    given = parser.parse_args()
    if given.demo:
        given.video, given.model = sample_clip(), "demo"

    with load(given.model) as model:
        stream = model.stream(given.video, "What happens when in this video?", max_new_tokens=100)
        for piece in stream:
            print(piece, end="", flush=True)
        answer = stream.description

    print(f"\n\n{answer.usage.new_tokens} tokens from {len(answer.frames)} frames")


if __name__ == "__main__":
    main()
