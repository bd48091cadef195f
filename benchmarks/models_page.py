"""Are the tables of docs/models.md what the code's own facts say? Writes them anew.

Nothing is measured here: members, sizes, tokens and memory come from the records of the known
checkpoints and from plans made for them.

    python benchmarks/models_page.py            # 1 where a table is out of date
    python benchmarks/models_page.py --write
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from performance_page import compare_or_write, with_tables

from llava_video.errors import CheckpointError
from llava_video.model.catalogue import (
    VIDEO_MINUTES,
    CatalogueEntry,
    by_member,
    picture_words,
    video_words,
)
from llava_video.model.hf_config import hf_from_original
from llava_video.model.known_models import known_config, known_geometry

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, or write."""
    return compare_or_write(__doc__, "models_page", PAGE, rewritten, arguments)


def rewritten(page: str) -> str:
    """Return the page with its tables made anew.

    Raises:
        ValueError: a mark is missing.
    """
    return with_tables(page, {"members": member_lines(), "checkpoints": checkpoint_lines()})


def member_lines() -> Iterator[str]:
    """Yield a row per member: what pictures and videos become, its templates, its class."""
    yield "| member | what it is | a picture is | a video is | templates | class of transformers |"
    yield "|---|---|---|---|---|---|"
    for member, entries in by_member():
        geometries = [known_geometry(entry.known.name) for entry in entries]
        facts = (
            member.name,
            member.about,
            " or ".join(dict.fromkeys(picture_words(one) for one in geometries if one)),
            " or ".join(dict.fromkeys(video_words(one) for one in geometries if one)),
            ", ".join(dict.fromkeys(f"`{entry.known.template}`" for entry in entries)),
            _class_of(entries[0]),
        )
        yield f"| {' | '.join(facts)} |"


def checkpoint_lines() -> Iterator[str]:
    """Yield a row per known checkpoint, member by member."""
    yield (
        "| checkpoint | size | context | tokens of a frame | frames, tokens of "
        f"{VIDEO_MINUTES} minutes | bf16 | int8 | int4 | + video | licence of the weights |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for member, entries in by_member():
        yield f"| **{member.name}** | | | | | | | | | |"
        for entry in entries:
            yield f"| {' | '.join(_cells(entry))} |"


def _cells(entry: CatalogueEntry) -> tuple[str, ...]:
    known = entry.known
    over = f" over {known.base}" if known.base else ""
    scale = "" if entry.position_scale == 1.0 else f", positions / {entry.position_scale:g}"
    sizes = (entry.bf16_bytes, entry.int8_bytes, entry.int4_bytes, entry.video_bytes)
    return (
        f"`{known.name}`{over}",
        known.size,
        f"{known.context_tokens:,}",
        f"{entry.frame_tokens:,}",
        f"{entry.num_frames:,}, {entry.num_tokens:,}{scale}",
        *(f"{size / 2**30:.1f}" for size in sizes),
        known.licence,
    )


def _class_of(entry: CatalogueEntry) -> str:
    """Return the class of transformers that a member is converted for, or that there is none."""
    config = known_config(entry.known.name)
    assert config is not None  # it is in the list
    try:
        return f"`{hf_from_original(config.values)['architectures'][0]}`"
    except CheckpointError:
        return "none"


if __name__ == "__main__":
    sys.exit(main())
