"""Records of the small world → pairs of answers to one question: the right one and a wrong one.

Only questions with a closed set of answers are made pairs of; the wrong one is drawn from the rest
of the set.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llava_video.files import replacing
from llava_video.world.dataset import read_records
from llava_video.world.dice import Dice


def preferences(record: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the pairs of a record, in the order of its questions.

    Args:
        record: of `example.records`.

    Yields:
        {"id", "video", "prompt", "chosen", "rejected", "kind"}; the video as in the record.
    """
    for idx, asked in enumerate(record["answers"]):
        wrong = [choice for choice in asked["choices"] if choice != asked["answer"]]
        if wrong:
            yield {
                "id": f"{record['id']}-{idx}",
                "video": record["video"],
                "prompt": asked["text"],
                "chosen": asked["answer"],
                "rejected": Dice(record["id"], idx, "rejected").pick(wrong),
                "kind": asked["kind"],
            }


def write_preferences(path: str | os.PathLike[str]) -> tuple[Path, int]:
    """Write the pairs of a data file beside it.

    Args:
        path: of `write_world`, `<split>.jsonl`.

    Returns:
        `<split>_preferences.jsonl`, and how many pairs it has.
    """
    whole = Path(path)
    target = whole.with_name(f"{whole.stem}_preferences.jsonl")
    num_pairs = 0
    with replacing(target) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for record in read_records(whole):
            for pair in preferences(record):
                file.write(json.dumps(pair, ensure_ascii=False) + "\n")
                num_pairs += 1
    return target, num_pairs
