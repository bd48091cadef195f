"""What a run over an archive is: its task, how it is cut, tried again and bounded.

How videos are sampled and answers made is `Options`' business, as everywhere.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from llava_video.config import check, setting, to_mapping
from llava_video.errors import ConfigError
from llava_video.values import Grid

Task = Literal["caption", "ask", "timeline"]

# What has to do with where a run takes place, and nothing with what comes out.
OPTIONS_OF_PLACE = frozenset({"sandbox", "allow_private"})
_SHARD = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSettings:
    """How an archive is worked."""

    task: Task = setting(
        "caption",
        "What is made of every video: a caption, answers to questions, or captions of windows "
        "with their times.",
    )
    prompts: tuple[str, ...] = setting(
        (),
        "What is asked of entries that bring no prompt of their own; one, but for ask. Empty: the "
        "model's own request for a description.",
    )
    window_s: float = setting(30.0, "Length of a timeline's windows.", unit="s", above=0)
    overlap_s: float = setting(
        0.0, "What neighbouring windows share, shorter than a window.", unit="s", at_least=0
    )
    summary: bool = setting(True, "Whether a timeline's captions are merged into one text.")
    shard_units: int = setting(
        1000, "Units in one file of rows, sealed when all of them have ended.", at_least=1
    )
    parquet: bool = setting(
        False, "Whether each file of rows has a Parquet twin beside it; needs the extra `archive`."
    )
    pictures: bool = setting(
        True,
        "Whether small pictures of what was seen are kept, for reports and hits; some 40 KB each.",
    )
    shard: str | None = setting(
        None,
        "I/N works every Nth entry from the Ith on, counted from 0, in a folder of its own under "
        "the output: for several machines.",
    )
    workers: int = setting(
        0,
        "Processes that load the model each, on a GPU of their own where there are GPUs; with ray, "
        "actors. 0: the run's own process; with ray, one per GPU, or per machine where none is.",
        at_least=0,
    )
    ray: str | None = setting(
        None,
        "Address of a Ray cluster whose machines work: HOST:PORT, or auto for the one this machine "
        "is part of, or of this machine alone; needs the extra `archive`.",
    )
    ray_gpus: float | None = setting(
        None,
        "GPUs that an actor takes, parts of one too; unset, 1 where the cluster has any.",
        unit="GPUs",
        at_least=0,
    )
    ray_cpus: float = setting(
        1.0, "Cores that an actor takes, for its decoding processes too.", unit="cores", at_least=0
    )
    in_flight: int = setting(
        8,
        "Videos under way at once, of each worker, each with a decoding process; the engine "
        "batches them.",
        unit="videos",
        at_least=1,
    )
    ahead_bytes: int = setting(
        2**30,
        "Most bytes of decoded frames held for all videos under way, of an actor for its own; one "
        "that is larger by itself goes alone.",
        unit="bytes",
        at_least=1,
    )
    attempts: int = setting(
        3,
        "How often a unit is tried whose error may pass (no room now, a download, a system error).",
        at_least=1,
    )
    retry_wait_s: float = setting(
        1.0, "Wait before such an error's next try, doubled for each further one.", unit="s",
        at_least=0,
    )  # fmt: skip
    sandbox: bool = setting(
        True,
        "Whether videos are decoded in processes that a broken file can kill without harm; off, "
        "such a file ends the run.",
    )
    finish_s: float = setting(
        10.0,
        "How long a run that is asked to stop waits for what is under way.",
        unit="s",
        at_least=0,
    )

    def __post_init__(self) -> None:
        check(self)
        if self.task == "ask" and not all(prompt.strip() for prompt in self.prompts):
            raise ConfigError("a question is empty.", "ask something, or leave it out.")
        if self.task != "ask" and len(self.prompts) > 1:
            raise ConfigError(
                f"task = {self.task!r} has {len(self.prompts)} prompts.",
                "give one, or task = 'ask', which answers several.",
            )
        if self.overlap_s >= self.window_s:
            raise ConfigError(
                f"overlap_s = {self.overlap_s!r}, window_s = {self.window_s!r}.",
                "an overlap is shorter than a window.",
            )
        self.shard_of()  # a mistyped one is told at once

    def shard_of(self) -> tuple[int, int]:
        """Return (I, N) of `shard`; (0, 1) for the whole.

        Raises:
            ConfigError: it is not I/N with 0 <= I < N.
        """
        if self.shard is None:
            return 0, 1
        found = _SHARD.fullmatch(self.shard)
        if found is None or not int(found[1]) < int(found[2]):
            raise ConfigError(
                f"shard = {self.shard!r}.", "I/N with I from 0 to N - 1: of four, 0/4 to 3/4."
            )
        return int(found[1]), int(found[2])

    def task_digest(self, options: Mapping[str, Any]) -> str:
        """Return the hash of the task and of what plans and answers by; prompts are a unit's own.

        Args:
            options: of every request, as in `Options`.
        """
        facts: dict[str, Any] = {"task": self.task, "options": plain_options(options)}
        if self.task == "timeline":
            facts |= {name: getattr(self, name) for name in ("window_s", "overlap_s", "summary")}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def facts(self, options: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
        """Return what has to be the same for a run to go on in a folder, by name.

        Prompts are not among it: what has another one is another unit, and only that is done anew.

        Args:
            options: of every request.
            model: what decides its answers.
        """
        names = ["task", "shard_units", "shard"]
        if self.task == "timeline":
            names += ["window_s", "overlap_s", "summary"]
        own = {name: value for name, value in to_mapping(self).items() if name in names}
        return {**own, "options": plain_options(options), "model": dict(model)}


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that decide what comes out, in words that JSON knows and `Options` too.

    Raises:
        ConfigError: one of them cannot be written down, so that nobody could tell it from another.
    """
    plain: dict[str, Any] = {}
    for name, value in sorted(options.items()):
        if name in OPTIONS_OF_PLACE:
            continue
        try:
            plain[name] = json.loads(json.dumps(value, default=_worded))
        except TypeError as cause:
            raise ConfigError(
                f"{name} = {value!r} cannot be written down in the run's folder.",
                "an archive takes options of plain values.",
            ) from cause
    return plain


def _worded(value: Any) -> Any:
    if isinstance(value, Grid):
        return [value.rows, value.cols]
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(type(value).__name__)
