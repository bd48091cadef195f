"""Entries of the inputs → units in the ledger, by threads of its own, while others are worked.

Hashing a large archive takes as long as reading it; nobody waits for it. Knows no model.
"""

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Final

from llava_video.archive.content import content_hash, local_path
from llava_video.archive.ledger import Ledger
from llava_video.archive.unit import Item, Unit
from llava_video.errors import LlavaVideoError
from llava_video.video.settings import FetchSettings

# The first units are worked as soon as they are known, later ones are stored by the thousand.
_FIRST_UNITS: Final = 8
_MOST_UNITS: Final = 1000
# A download or a disk far away leaves one thread waiting most of the time.
_HASHERS: Final = 4
_MOST_AHEAD: Final = 8
_DEFAULT_FETCH: Final = FetchSettings()

_Task = tuple[Item, "Future[Unit]"]

_LOG = logging.getLogger(__name__)


class Feeder(threading.Thread):
    """Hash entries and put them into the ledger, in order.

    An entry that cannot be read is a unit too, with "" for its hash: working it says why.

    Args:
        ledger: where to.
        items: the entries, numbered from 0.
        key_of: (hash, item) → the unit's key.
        tries: how often what has to be fetched is tried.
        wait_s: before the next try.
        fetch: whom a download may ask, and its limits.

    Attributes:
        count: entries that stand in the ledger as they are now; what an earlier run has left behind
            them may be asked for no more.
        is_done: whether all of them are there.
        error: what ended it before.
    """

    def __init__(
        self,
        ledger: Ledger,
        items: Iterable[Item],
        key_of: Callable[[str, Item], str],
        *,
        tries: int = 1,
        wait_s: float = 0.0,
        fetch: FetchSettings = _DEFAULT_FETCH,
    ) -> None:
        super().__init__(name="llava-video archive inputs", daemon=True)
        self._ledger, self._items, self._key_of = ledger, items, key_of
        self._tries, self._wait_s, self._fetch = tries, wait_s, fetch
        self._stopped = threading.Event()
        self.count = 0
        self.is_done = False
        self.error: Exception | None = None

    def run(self) -> None:
        """Feed until the end, an error of the ledger, or `stop`."""
        try:
            self._feed()
        except Exception as error:  # noqa: BLE001 - a thread's border: the runner raises it
            if not self._stopped.is_set():
                self.error = error

    def stop(self) -> None:
        """Feed no more; waits for what is under way, but not for a slow download."""
        self._stopped.set()
        self.join(2.0)

    def _feed(self) -> None:
        batch: list[Unit] = []
        size = _FIRST_UNITS
        for unit in self._units():
            if self._stopped.is_set():
                return
            batch.append(unit)
            if len(batch) >= size:
                self._add(batch)
                batch, size = [], min(2 * size, _MOST_UNITS)
        self._add(batch)
        self._ledger.close_inputs(self.count)
        self.is_done = True

    def _units(self) -> Iterator[Unit]:
        """Yield the units of all entries, in order, hashed a little ahead by several threads."""
        tasks: SimpleQueue[_Task | None] = SimpleQueue()
        for _ in range(_HASHERS):
            # Daemons, unlike a pool's: a slow download must not keep a program from ending.
            threading.Thread(target=self._hash_all, args=(tasks,), daemon=True).start()
        ahead: deque[Future[Unit]] = deque()
        try:
            for item in self._items:
                ahead.append(Future())
                tasks.put((item, ahead[-1]))
                if len(ahead) >= _MOST_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for _ in range(_HASHERS):
                tasks.put(None)

    def _hash_all(self, tasks: "SimpleQueue[_Task | None]") -> None:
        while (task := tasks.get()) is not None:
            item, future = task
            if self._stopped.is_set():
                future.cancel()
                continue
            try:
                future.set_result(self._unit(item))
            except Exception as error:  # noqa: BLE001 - a thread's border: the feeder raises it
                future.set_exception(error)

    def _add(self, batch: list[Unit]) -> None:
        self._ledger.add(batch)
        self.count += len(batch)

    def _unit(self, item: Item) -> Unit:
        content = self._hash(item.address)
        # Of what cannot be read nothing is known but where it should be.
        key = self._key_of(content or f"unread {item.address}", item)
        return Unit(key=key, number=item.number, item=item, content_hash=content)

    def _hash(self, address: str) -> str:
        for tried in itertools.count(1):
            try:
                return content_hash(address, self._ledger, fetch_settings=self._fetch)
            except LlavaVideoError as error:
                _LOG.debug("%s has no hash: %s", address, error)
            # Asked of what failed alone: it costs as much as the hash of a file that is known.
            is_last = tried >= self._tries or local_path(address) is not None
            if is_last or self._stopped.wait(self._wait_s):
                break
        return ""
