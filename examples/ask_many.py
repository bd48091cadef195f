"""Ask several questions of one video: it is decoded, seen and read once."""

import argparse

from llava_video import load
from llava_video.demo.sample import sample_clip


def main() -> None:
    """Ask three questions and print what each of them cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--demo", action="store_true", help="the sample clip, the packaged model")
    given = parser.parse_args()
    if given.demo:
        given.video, given.model = sample_clip(), "demo"

    questions = ["How many objects are there in all?", "Is there a ring?", "Did anything change?"]
    with load(given.model) as model:
        answers = model.ask_many(given.video, questions, max_new_tokens=60)

    for question, answer in zip(questions, answers, strict=True):
        usage = answer.usage
        prompt_tokens = usage.text_tokens + usage.visual_tokens
        print(f"{question}\n  {answer.text}")
        print(f"  {usage.reused_tokens:,} of {prompt_tokens:,} prompt tokens were there already\n")


if __name__ == "__main__":
    main()
