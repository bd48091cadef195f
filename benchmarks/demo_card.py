"""What does the demo model know, and how well? Facts and measured results -> its card.json.

The facts are written by hand: YAML with the fields of `llava_video.model.card.ModelCard` but
`results`, by default `demo_card.yaml` beside this file; what one training decides (seed,
wall_time_s, trained_on, measured_on) is set beside it. The results are measured: JSON, kind -> n,
accuracy, low, high and blind, as shares of 1; of several files, a later one's kinds come after and
replace. What is taught in the small world (objects, colours, events, an example of each form of
question) is filled in where the facts leave it out.

    python benchmarks/demo_card.py FOLDER --results FILE [FILE …] [--facts FILE] [--set seed=0 …]
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from llava_video.errors import ConfigError, LlavaVideoError
from llava_video.model.card import SMALL_WORLD, write_card
from llava_video.world.example import PROMPTS, make_example
from llava_video.world.question import ANSWERS
from llava_video.world.splits import split_settings
from llava_video.world.vocabulary import COLOURS, SHAPES, VERBS

FACTS = Path(__file__).with_name("demo_card.yaml")
_MOST_CLIPS = 500  # that are drawn to find a question of each kind


def taught() -> dict[str, list[str]]:
    """Return what the small world has to teach, in its own words."""
    texts = {style: prompts[0] for style, prompts in PROMPTS.items()}
    found: dict[str, str] = {}
    for idx in range(_MOST_CLIPS):
        for question in make_example(split_settings("heldout"), "card", 0, idx).questions:
            found.setdefault(question.kind, question.text)
        if len(found) == len(ANSWERS):
            break
    return {
        "objects": list(SHAPES),
        "colours": list(COLOURS),
        "events": [f"it {does}" for does, _ in VERBS.values()],
        "questions": [*texts.values(), *(found[kind] for kind in ANSWERS if kind in found)],
    }


def read_object(path: Path) -> dict[str, Any]:
    """Read a file of JSON or YAML that holds one object.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as cause:
        raise ConfigError(f"cannot read {path}: {cause}.", "give JSON or YAML in UTF-8.") from cause
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} holds no object.", "write keys and values.")
    return dict(values)


def change_of(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, the value as JSON where it is any, else as text.

    Raises:
        ConfigError: it is not of this form.
    """
    name, is_pair, value = text.partition("=")
    try:
        read = json.loads(value)
    except ValueError:
        read = value  # words
    if not (is_pair and name):
        raise ConfigError(f"--set {text!r} names no fact.", "write NAME=VALUE.")
    return name, read


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the card, print it, and return 0; 1 where something is wrong with it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the checkpoint's")
    parser.add_argument("--facts", type=Path, default=FACTS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="changes")
    parser.add_argument("--results", type=Path, nargs="+", required=True)
    given = parser.parse_args(arguments)
    try:
        facts = read_object(given.facts) | dict(map(change_of, given.changes))
        if facts.get("world") == SMALL_WORLD:
            facts = {"describe": PROMPTS["detailed"][0], **facts}
            facts["knows"] = taught() | facts.get("knows", {})
        results: dict[str, Any] = {}
        for path in given.results:
            results |= read_object(path)
        print(write_card(given.folder, facts, results))
    except LlavaVideoError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
