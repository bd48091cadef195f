"""Talk about a video: every turn continues where the last one ended."""

import argparse

from llava_video import load
from llava_video.demo.files import passing_demo_files


def main() -> None:
    """Hold a conversation of three turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--tiny", action="store_true", help="a made-up clip and a random model")
    given = parser.parse_args()
    if given.tiny:
        files = passing_demo_files()
        given.video, given.model = files.clip, files.model

    with load(given.model) as model, model.chat(given.video, max_new_tokens=60) as chat:
        for question in ("What is in the video?", "Which colour has it?", "Are you sure?"):
            answer = chat.ask(question)
            print(f"you    {question}")
            print(f"model  {answer.text}")
            print(f"       ({answer.usage.reused_tokens:,} tokens kept from before)\n")


if __name__ == "__main__":
    main()
