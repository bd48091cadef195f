"""`python -m llava_video` is the `llava-video` command."""

from llava_video.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
