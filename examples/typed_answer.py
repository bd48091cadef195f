"""Get answers a program can use: one of several choices, or JSON of a given shape."""

import argparse

from llava_video import load
from llava_video.demo.files import passing_demo_files


def main() -> None:
    """Ask for a choice with its probability, then for an object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--tiny", action="store_true", help="a made-up clip and a random model")
    given = parser.parse_args()
    if given.tiny:
        files = passing_demo_files()
        given.video, given.model = files.clip, files.model

    shape = {
        "type": "object",
        "properties": {
            "people": {"type": "integer", "minimum": 0, "maximum": 99},
            "outdoors": {"type": "boolean"},
        },
        "required": ["people", "outdoors"],
        "additionalProperties": False,
    }
    with load(given.model) as model:
        chosen = model.ask(given.video, "Where is this?", response_format=["indoors", "outdoors"])
        counted = model.ask(given.video, "Who is where? Answer in JSON.", response_format=shape)

    print(f"{chosen.parsed}, with probability {chosen.confidence:.2f} among the choices")
    print(f"{counted.parsed['people']} people, outdoors: {counted.parsed['outdoors']}")


if __name__ == "__main__":
    main()
