"""Compare plans before anything is decoded, then run the one you like."""

import argparse

from llava_video import load
from llava_video.demo.sample import sample_clip


def main() -> None:
    """Plan three ways, print what each costs, run the cheapest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--demo", action="store_true", help="the sample clip, the packaged model")
    given = parser.parse_args()
    if given.demo:
        given.video, given.model = sample_clip(), "demo"

    question = "What happens when in this video?"
    with load(given.model) as model:
        plans = {
            detail: model.plan(given.video, question, detail=detail, max_new_tokens=100)
            for detail in ("low", "medium", "high")
        }
        for detail, plan in plans.items():
            seen = plan.visuals[0]
            each = f"{seen.num_frames} frames, {seen.tiles_per_frame} tiles each"
            print(f"{detail:<7} {each}: {plan.visual_tokens:,} tokens")
        cheapest = min(plans.values(), key=lambda plan: plan.visual_tokens)
        answer = model.run(cheapest)

    assert answer.usage.visual_tokens == cheapest.visual_tokens  # a plan is a promise
    print(f"\n{question}\n{answer.text}")


if __name__ == "__main__":
    main()
