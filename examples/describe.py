"""Describe a video, and see what the description rests on."""

import argparse

from llava_video import load
from llava_video.demo.sample import sample_clip


def main() -> None:
    """Describe, then print the answer and its evidence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--demo", action="store_true", help="the sample clip, the packaged model")
    given = parser.parse_args()
    if given.demo:
        given.video, given.model = sample_clip(), "demo"

    with load(given.model) as model:
        answer = model.describe(given.video, max_new_tokens=200)

    print(answer.text)
    first, last = answer.frames[0], answer.frames[-1]
    print(f"\n{len(answer.frames)} frames were seen, {first.pts_s:.2f} s to {last.pts_s:.2f} s.")
    print(f"It took {answer.timings['total']:.1f} s and ended with {answer.finish_reason!r}.")
    for warning in answer.warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    main()
