"""Questions as lines of JSON → answers as lines of JSON: the library behind a pipe.

    {"id": 1, "prompt": "What is shown?", "visuals": ["a.mp4"], "options": {}}
    {"id": 1, "text": "A dog.", "frames": 64, "visual_tokens": 13440, "new_tokens": 5}
    {"id": 2, "failure": {"kind": "SourceError", "message": "…", "hint": "…"}}

One line each, answers in the order of the questions; the first line says {"ready": MODEL}. Visuals
are paths, pictures by their suffix and videos otherwise. Started as

    python -m llava_video.eval.worker '{"model": "…", "load": {"device": "cpu"}, "options": {}}'

it answers until its input ends. A question that cannot be answered is a line like any other.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llava_video.api import LlavaVideo, load
from llava_video.config import to_mapping
from llava_video.errors import ConfigError
from llava_video.eval.media import PICTURE_SUFFIXES
from llava_video.eval.records import Failure
from llava_video.inputs import Picture, Video

Write = Callable[[str], object]


def answer_lines(
    model: LlavaVideo, lines: Iterable[str], write: Write, options: Mapping[str, Any]
) -> None:
    """Answer every line.

    Args:
        model: answers.
        lines: one question each, as above; empty ones are passed over.
        write: is given one line per question, its end included.
        options: of every question; its own win over them.
    """
    for line in lines:
        if line.strip():
            write(json.dumps(_answer(model, line, options), ensure_ascii=False) + "\n")


def _answer(model: LlavaVideo, line: str, options: Mapping[str, Any]) -> dict[str, Any]:
    question: Any = {}
    try:
        question = json.loads(line)
        if not isinstance(question, Mapping):
            raise ConfigError(f"{line[:40]!r} is no question.", "an object with a prompt.")
        visuals = [
            Picture(path) if path.lower().endswith(PICTURE_SUFFIXES) else Video(path)
            for path in question.get("visuals", ())
        ]
        asked = {**options, **question.get("options", {})}
        found = model.ask(visuals or None, question.get("prompt"), **asked)
    except Exception as error:  # noqa: BLE001 - one question must not end the others
        name = question.get("id") if isinstance(question, Mapping) else None
        return {"id": name, "failure": to_mapping(Failure.of(error))}
    return {
        "id": question.get("id"),
        "text": found.text,
        "frames": len(found.frames),
        "visual_tokens": found.usage.visual_tokens,
        "text_tokens": found.usage.text_tokens,
        "new_tokens": found.usage.new_tokens,
        "warnings": list(found.warnings),
    }


def main(settings: str) -> None:
    """Load a model and answer the lines of stdin on stdout.

    Args:
        settings: JSON: "model", and if wanted the keywords of `load` and of every question.
    """
    wanted = json.loads(settings)
    out = sys.stdout
    sys.stdout = sys.stderr  # what a package prints must not stand among the answers

    def write(line: str) -> None:
        out.write(line)
        out.flush()

    try:
        model = load(wanted["model"], **wanted.get("load", {}))
    except Exception as error:  # noqa: BLE001 - whoever started it reads this line
        write(json.dumps({"failure": to_mapping(Failure.of(error))}, ensure_ascii=False) + "\n")
        return
    with model:
        write(json.dumps({"ready": model.spec.name}) + "\n")
        answer_lines(model, sys.stdin, write, wanted.get("options", {}))


if __name__ == "__main__":
    main(sys.argv[1])
