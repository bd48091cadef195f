"""Caption a video of any length, window by window, and write subtitles."""

import argparse

from llava_video import load
from llava_video.demo.sample import sample_clip


def main() -> None:
    """Caption windows that overlap, print subtitles and the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--demo", action="store_true", help="the sample clip, the packaged model")
    given = parser.parse_args()
    if given.demo:
        given.video, given.model = sample_clip(), "demo"

    with load(given.model) as model:
        # Windows of this length suit the clip of --demo; half a minute suits an hour of footage.
        timeline = model.timeline(given.video, window_s=3.0, overlap_s=0.5, max_new_tokens=40)

    print(timeline.to_vtt())
    print(f"Summary: {timeline.summary}")
    for warning in timeline.warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    main()
