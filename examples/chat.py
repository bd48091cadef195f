"""Talk about a video: every turn continues where the last one ended."""

import argparse

from llava_video import load
from llava_video.demo.sample import sample_clip


def main() -> None:
    """Hold a conversation of three turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="clip.mp4")
    parser.add_argument("--model", default="lmms-lab/LLaVA-Video-7B-Qwen2")
    parser.add_argument("--demo", action="store_true", help="the sample clip, the packaged model")
    given = parser.parse_args()
    if given.demo:
        given.video, given.model = sample_clip(), "demo"

    with load(given.model) as model, model.chat(given.video, max_new_tokens=60) as chat:
        for question in ("What happens in this video?", "Is there a square?", "What colour is it?"):
            answer = chat.ask(question)
            print(f"you    {question}")
            print(f"model  {answer.text}")
            print(f"       ({answer.usage.reused_tokens:,} tokens kept from before)\n")


if __name__ == "__main__":
    main()
