"""Let a model judge answers about a video: a score with reasons, and which answer is better."""

import argparse

from llava_video import load
from llava_video.demo.sample import sample_clip


def main() -> None:
    """Score one answer, then compare three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/llava-critic-7b")
    parser.add_argument("--demo", action="store_true", help="the sample clip, the packaged model")
    given = parser.parse_args()
    options = {}
    if given.demo:
        given.video, given.model, options = sample_clip(), "demo", {"max_new_tokens": 20}

    question = "What moves, and where to?"
    answers = ["A bar moves to the right.", "Nothing moves.", "A cat leaves the room."]
    with load(given.model) as model:
        verdict = model.judge(given.video, question, answers[0], **options)
        preference = model.compare(given.video, question, answers, **options)

    score = "no certain score" if verdict.score is None else f"{verdict.score:g}"
    print(f"{answers[0]}: {score} of {verdict.scale}\n  {verdict.reasons}")
    for answer, points in zip(preference.answers, preference.scores, strict=True):
        print(f"{points:+d}  {answer}")
    best = "none" if preference.best is None else answers[preference.best]
    print(f"{preference.outcome} by {len(preference.comparisons)} comparisons, best: {best}")
    for warning in preference.warnings:
        print(f"  {warning}")


if __name__ == "__main__":
    main()
