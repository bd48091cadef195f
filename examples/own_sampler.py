"""Choose the moments yourself: ever closer together towards the end, where the answer lies."""

import argparse
from collections.abc import Sequence

from llava_video import VideoInfo, load
from llava_video.demo.sample import sample_clip
from llava_video.values import Segment


def towards_the_end(info: VideoInfo, *, span: Segment, max_frames: int) -> Sequence[float]:
    """Return moments that lie closer and closer together: each half as far from the end."""
    length_s = span.end_s - span.start_s
    return [span.end_s - length_s / 2**k for k in range(min(max_frames, 6))]


def main() -> None:
    """Plan with an own sampler, print its moments, and ask about the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--demo", action="store_true", help="the sample clip, the packaged model")
    given = parser.parse_args()
    if given.demo:
        given.video, given.model = sample_clip(), "demo"

    question = "How many objects can be seen now?"
    with load(given.model) as model:
        plan = model.plan(given.video, question, sampling=towards_the_end, max_new_tokens=100)
        print("Looks at", ", ".join(f"{time_s:.2f} s" for time_s in plan.visuals[0].times_s))
        print(plan.reasons[0])
        answer = model.run(plan)
    print(f"\n{question}\n{answer.text}")


if __name__ == "__main__":
    main()
