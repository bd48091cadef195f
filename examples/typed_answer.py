"""Get answers a program can use: one of several choices, or JSON of a given shape."""

import argparse

from llava_video import load
from llava_video.demo.sample import sample_clip


def main() -> None:
    """Ask for a choice with its probability, then for an object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--demo", action="store_true", help="the sample clip, the packaged model")
    given = parser.parse_args()
    if given.demo:
        given.video, given.model = sample_clip(), "demo"

    shape = {
        "type": "object",
        "properties": {
            "objects": {"type": "integer", "minimum": 0, "maximum": 99},
            "sign": {"type": "boolean"},
        },
        "required": ["objects", "sign"],
        "additionalProperties": False,
    }
    with load(given.model) as model:
        chosen = model.ask(given.video, "Did anything change?", response_format=["yes", "no"])
        counted = model.ask(given.video, "What is there? Answer in JSON.", response_format=shape)

    print(f"{chosen.parsed}, with probability {chosen.confidence:.2f} among the choices")
    print(f"{counted.parsed['objects']} objects, a sign: {counted.parsed['sign']}")


if __name__ == "__main__":
    main()
