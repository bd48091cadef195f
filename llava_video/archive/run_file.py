"""What a run folder was begun with ↔ its `run.json`; another run's is refused with the difference.

Knows no ledger and no model: the file is for people, and for the next run's first look.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from llava_video import lock
from llava_video.errors import ConfigError
from llava_video.files import replacing

RUN_FILE: Final = "run.json"


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Return what a folder was begun with; None of one that was not.

    Raises:
        ConfigError: the file is damaged.
    """
    path = folder / RUN_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as cause:
        raise ConfigError(f"{path} cannot be read: {cause}.", "name another folder.") from cause
    if not isinstance(facts, dict) or not isinstance(facts.get("same"), dict):
        raise ConfigError(f"{path} is none of ours.", "name another folder.")
    return facts


def check_begun(folder: Path, wanted: Mapping[str, Any]) -> None:
    """See, before there is a model, that a folder is free and of no other run.

    Args:
        folder: of the run; it may not be there yet.
        wanted: what has to stay the same, the model aside.

    Raises:
        ConfigError: it holds another run; with every difference.
        LedgerBusyError: another process works on it.
    """
    before = read_facts(folder)
    if before is not None:
        found = {name: value for name, value in before["same"].items() if name != "model"}
        check_same(folder, found, wanted)
    if (folder / lock.NAME).exists():
        lock.RunLock(folder).release()


def check_same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """See that a folder's run is the one that is wanted.

    Args:
        folder: for the message.
        found: what has to stay the same, as it stands there.
        wanted: as it is now; plain values.

    Raises:
        ConfigError: they differ; with every difference.
    """
    theirs, ours = dict(_flat(found)), dict(_flat(wanted))
    differences = [
        f"{name} = {theirs.get(name)!r}, not {ours.get(name)!r}"
        for name in {**ours, **theirs}
        if theirs.get(name) != ours.get(name)
    ]
    if differences:
        raise ConfigError(
            f"{folder} holds a run with {'; '.join(differences)}.",
            "name another folder, or take the settings it was begun with.",
        )


def write_facts(folder: Path, same: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    """Write down what a run is.

    Args:
        folder: of the run.
        same: what has to stay the same for a run to go on there.
        more: what people want to know besides.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps({"same": dict(same), **more}, indent=1, ensure_ascii=False)
    with replacing(folder / RUN_FILE) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
