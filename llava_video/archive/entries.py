"""Inputs as given and a run's settings → the entries that this run is about, with what is asked.

Knows no ledger and no model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from llava_video.archive.items import items_of
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.unit import Item
from llava_video.errors import ConfigError


class Entries:
    """The entries of the inputs that this run is about; may be iterated again and again.

    Args:
        inputs: as given.
        settings: their shard, and the prompts of entries without their own.
        columns: of lists.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        settings: ArchiveSettings,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        self._inputs, self._settings, self._columns = inputs, settings, columns

    def __iter__(self) -> Iterator[Item]:
        own, of = self._settings.shard_of()
        number = 0
        prompts = self._settings.prompts
        for item in items_of(self._inputs, columns=self._columns, prompts=prompts):
            if item.number % of == own:
                yield replace(item, number=number, prompts=item.prompts or prompts)
                number += 1

    def check(self) -> None:
        """Look at all of them.

        Raises:
            ManifestError: some cannot be worked as they are written.
            ConfigError: there is none, or the task has no prompt, or too many, for one.
        """
        item = None
        task = self._settings.task
        for item in self:
            if task == "ask" and not item.prompts:
                raise ConfigError(
                    f"{item.address} has no question.",
                    "give questions for all entries, or a column of prompts.",
                )
            if task != "ask" and len(item.prompts) > 1:
                raise ConfigError(
                    f"{item.address} has {len(item.prompts)} prompts, the task is {task}.",
                    "task = 'ask' answers several.",
                )
        if item is None:
            raise ConfigError("the inputs hold no video.", "check the names, or the shard.")
