"""Folders, patterns, lists, files and URLs as typed → the items of a run, in one certain order.

Everything that can be wrong with them is found and told at once, before any work. Two passes are
made over a list, so that one of millions of lines is never in memory. Opens no video: one that is
broken or gone is a row of its own kind, not a reason to refuse the others.
"""

import glob
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llava_video.archive.manifest import (
    COLUMNS,
    SUFFIXES,
    Entry,
    Problem,
    own_prompts,
    read_manifest,
)
from llava_video.archive.unit import Item
from llava_video.errors import ConfigError, LlavaVideoError, ManifestError
from llava_video.video.object_store import SCHEMES, list_objects
from llava_video.video.settings import FetchSettings
from llava_video.video.spool import public_url

VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg"),
        *(".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".gif"),
    }
)
MOST_TOLD = 20
_SIGNS = "*?["
_DEFAULT_FETCH = FetchSettings()


def items_of(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    columns: Mapping[str, str] | None = None,
    prompts: tuple[str, ...] = (),
    fetch_settings: FetchSettings = _DEFAULT_FETCH,
) -> Iterator[Item]:
    """Return the items that inputs name: in the order given, folders and patterns by name.

    Args:
        inputs: files; folders, searched with all below them for files with a video's suffix;
            patterns with *, ?, [ or **; lists (see `manifest.SUFFIXES`); http, s3 and gs addresses,
            of which s3 and gs may be folders and patterns too.
        columns: what the columns of lists are called, see `read_manifest`.
        prompts: the task's; their fields, such as {title}, stand for columns of lists.
        fetch_settings: time limit of a listing.

    Raises:
        ManifestError: nothing is named, an input is not there or names no video, a line of a list
            cannot be used, or two say the same. The first `MOST_TOLD` problems are told.
        ConfigError: `columns` names what no list has.
    """
    unknown = sorted(set(columns or {}) - set(COLUMNS))
    if unknown:
        raise ConfigError(f"lists have no {unknown[0]!r}.", f"columns: {', '.join(COLUMNS)}.")
    if isinstance(inputs, str):
        raise ConfigError(f"inputs = {inputs!r} is one text.", "a list of texts.")
    # What is listed is listed once: a folder that grows meanwhile would say different things.
    found = [_found(os.fspath(text), fetch_settings) for text in inputs]

    def entries() -> Iterator[Entry | Problem]:
        for listed in found:
            if isinstance(listed, Path):
                yield from read_manifest(listed, columns, prompts)
            else:
                yield from (_asked(entry, prompts) for entry in listed)

    _refuse(entries())
    return (
        Item(
            number=number,
            address=entry.address,
            prompts=entry.prompts,
            start_s=entry.start_s,
            end_s=entry.end_s,
            name=entry.name,
        )
        for number, entry in enumerate(_sound(entries()))
    )


def _asked(entry: Entry | Problem, prompts: tuple[str, ...]) -> Entry | Problem:
    """Give a file its own prompts, where the task's have marks that lists fill in."""
    if isinstance(entry, Problem) or not any("{" in prompt for prompt in prompts):
        return entry
    try:
        own = own_prompts((), prompts, {}, entry.where)
    except ConfigError as error:
        return Problem(error.message, error.hint)
    return replace(entry, prompts=own) if own else entry


def _refuse(entries: Iterator[Entry | Problem]) -> None:
    """Look at everything, and raise what is wrong with it."""
    seen: dict[bytes, int] = {}
    told: list[Problem] = []
    num_problems, number = 0, 0
    for entry in entries:
        problem = entry if isinstance(entry, Problem) else _repeated(entry, number, seen)
        number += not isinstance(entry, Problem)
        if problem is not None:
            num_problems += 1
            told += [problem] if num_problems <= MOST_TOLD else []
    if not number and not told:
        raise ManifestError("no inputs are named.", "name a folder, a list or a file.")
    if told:
        lines = tuple(problem.text for problem in told)
        more = f"\n  … and {num_problems - len(told)} more" if num_problems > len(told) else ""
        listed = "".join(f"\n  {line}" for line in lines)
        raise ManifestError(
            f"{num_problems} of the inputs cannot be used:{listed}{more}", told[0].hint, lines
        )


def _repeated(entry: Entry, number: int, seen: dict[bytes, int]) -> Problem | None:
    """Say that an entry was there before; remember it otherwise."""
    place = entry.address if "://" in entry.address else os.path.abspath(entry.address)  # noqa: PTH100 - of 100,000 addresses none is looked up
    facts = repr((place, entry.start_s, entry.end_s, entry.prompts))
    digest = hashlib.blake2b(facts.encode("utf-8", "surrogateescape"), digest_size=16).digest()
    first = seen.setdefault(digest, number)
    if first == number:
        return None
    return Problem(
        f"{entry.where}: {_shown(entry.address)} is there before, as input {first}.",
        "name each video once, or ask for another span or prompt.",
    )


def _sound(entries: Iterator[Entry | Problem]) -> Iterator[Entry]:
    """Yield entries; a problem is news here, since there was none in the first pass."""
    for entry in entries:
        if isinstance(entry, Problem):
            raise ManifestError(
                f"the inputs changed while they were read: {entry.text}", entry.hint, (entry.text,)
            )
        yield entry


def _found(text: str, fetch_settings: FetchSettings) -> Path | list[Entry | Problem]:
    """Find what one input names: a list's path, or entries."""
    if "://" in text or text[:5].lower() == "data:":
        return _remote(text, fetch_settings)
    path = Path(text)
    if path.is_dir():
        return _in_folder(path)
    if not path.exists() and any(sign in text for sign in _SIGNS):
        return _matched(text)
    if not path.is_file():
        return [Problem(f"{text!r} is not there.", "check the path.")]
    if path.suffix.lower() in SUFFIXES:
        return path
    return [Entry(where=text, address=text)]


def _in_folder(folder: Path) -> list[Entry | Problem]:
    paths: list[str] = []
    unreadable: list[Entry | Problem] = []

    def note(error: OSError) -> None:
        unreadable.append(
            Problem(f"{error.filename} cannot be read: {error.strerror}.", "check its permissions.")
        )

    for root, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # Texts: a Path per file would take longer than everything else of a second start.
        paths += [f"{root}{os.sep}{name}".removeprefix("./") for name in files if _is_video(name)]
    paths.sort(key=lambda path: path.split(os.sep))  # noqa: PTH206 - as the reason above
    entries = [Entry(where=path, address=path) for path in paths]
    return [*unreadable, *entries] or [
        Problem(f"{folder} holds no video.", "its files need a video's suffix, such as .mp4.")
    ]


def _matched(pattern: str) -> list[Entry | Problem]:
    files = [name for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file()]  # noqa: PTH207 - Path.glob takes no absolute pattern
    # Beside videos nothing else is meant; where there is none, "*.dat" is, and "*" is not.
    named = Path(pattern).suffix.strip(".*?[]")
    files = [name for name in files if _is_video(name)] or (files if named else [])
    if not files:
        return [Problem(f"{pattern!r} matches no video.", "quote it, and check the folder.")]
    return [Entry(where=name, address=name) for name in files]


def _remote(url: str, fetch_settings: FetchSettings) -> list[Entry | Problem]:
    scheme, _, place = url.partition("://")
    is_listed = any(sign in place for sign in _SIGNS) or not _is_video(place.rpartition("/")[2])
    if scheme.lower() not in SCHEMES or not is_listed:
        return [Entry(where=_shown(url), address=url)]
    try:
        addresses = [name for name in list_objects(url, fetch_settings) if _is_video(name)]
    except LlavaVideoError as error:
        return [Problem(error.message, error.hint)]
    if not addresses:
        return [Problem(f"{_shown(url)} holds no video.", "its names need a suffix such as .mp4.")]
    return [Entry(where=name, address=name) for name in addresses]


def _is_video(name: str) -> bool:
    base = name.rpartition("/")[2]
    stem, dot, suffix = base.rpartition(".")
    return bool(stem) and f"{dot}{suffix.lower()}" in VIDEO_SUFFIXES and not base.startswith(".")


def _shown(address: str) -> str:
    """Return an address without what may be a secret in it, and of a length to be read."""
    if address[:5].lower() == "data:":
        return "a data URL"
    return public_url(address) if "://" in address else address
