"""Messages wait for each sink in their order, and states are stored with them or not at all."""

import sqlite3
import threading
from pathlib import Path

import pytest
from monitor_cases import message_of

from llava_video.errors import LedgerBusyError, LedgerError
from llava_video.monitor.message import Message, StoredFile
from llava_video.monitor.spool import NAME, Batch, Spool


def put(spool: Spool, *messages: Message, sinks: tuple[str, ...] = ("a", "b")) -> int:
    return spool.put(Batch(messages=[(one, sinks) for one in messages], at_s=5.0))


def picture(number: int, made_at_s: float = 0.0, kind: str = "snapshot") -> StoredFile:
    alert = f"{number:032x}"
    return StoredFile(
        name=f"{alert}-{kind}.jpg", alert_id=alert, kind=kind, num_bytes=10 + number,
        made_at_s=made_at_s,
    )  # fmt: skip


def test_each_sink_takes_all_messages_in_their_order(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        assert put(spool, message_of(1), message_of(2)) == 2
        assert put(spool, message_of(3), sinks=("b",)) == 1
        taken: dict[str, list[str]] = {"a": [], "b": []}
        for sink in ("a", "b", "a", "b", "b"):
            head = spool.head(sink)
            assert head is not None
            assert spool.head(sink) == head  # until it is marked
            taken[sink].append(head.id)
            spool.delivered(sink, head.seq)
        assert taken["a"] == [message_of(1).id, message_of(2).id]
        assert taken["b"] == [message_of(number).id for number in (1, 2, 3)]
        assert spool.head("a") is spool.head("b") is None
        assert spool.num_waiting() == {}


def test_a_message_that_is_there_is_not_put_again(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        put(spool, message_of(1))
        for sink in ("a", "b"):
            spool.delivered(sink, 1)
        assert put(spool, message_of(1), message_of(2)) == 1
        assert spool.num_waiting() == {"a": 1, "b": 1}


def test_everything_is_there_after_it_was_opened_again(tmp_path: Path) -> None:
    state = '{"number": 1}'
    with Spool(tmp_path) as spool:
        spool.put(
            Batch(
                messages=[(message_of(1), ["a"])], states={("person", "gate"): state},
                files=[picture(1)], at_s=1.0,
            )
        )  # fmt: skip
        spool.count("lost", 2)
        spool.count("lost")
    with Spool(tmp_path) as spool:
        head = spool.head("a")
        assert head is not None
        assert (head.id, head.body, head.seq) == (message_of(1).id, message_of(1).body, 1)
        assert spool.state("person", "gate") == state
        assert spool.state("person", "yard") is None
        assert [one.name for one in spool.files()] == [picture(1).name]
        assert spool.counts() == {"lost": 3}


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        broken = Message(id="x", alert_id="x", kind="alarm", severity="info", body="{}")
        with pytest.raises(LedgerError):
            spool.put(
                Batch(messages=[(message_of(1), ["a"]), (broken, ["a"])], states={("r", "c"): "1"})
            )
        assert spool.head("a") is None
        assert spool.state("r", "c") is None


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Spool(tmp_path / "new" / "folder"), pytest.raises(LedgerBusyError):
        Spool(tmp_path / "new" / "folder")
    Spool(tmp_path / "new" / "folder").close()


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot be made"):
        Spool(tmp_path / "file" / "folder")


def test_messages_are_on_the_disk_before_put_returns(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        assert spool._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert spool._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_files_of_what_waits_are_needed(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        files = [picture(2, 20.0), picture(1, 10.0), picture(3, 10.0, "sheet")]
        spool.put(
            Batch(messages=[(message_of(1), ["a"]), (message_of(2), ["a", "b"])], files=files)
        )
        assert [(one.num_bytes, one.is_needed) for one in spool.files()] == [
            (11, True), (13, False), (12, True),
        ]  # fmt: skip
        spool.delivered("a", 1)
        spool.delivered("a", 2)
        assert [one.is_needed for one in spool.files()] == [False, False, True]
        put(spool, message_of(1, "update"))
        assert [one.is_needed for one in spool.files()] == [True, False, True]
        spool.forget_files([picture(1).name])
        assert len(spool.files()) == 2


def test_what_is_delivered_everywhere_is_pruned_by_age(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        put(spool, message_of(1), message_of(2), message_of(3))
        for sink, seq in (("a", 1), ("b", 1), ("a", 2)):
            spool.delivered(sink, seq)
        assert spool.prune(before_s=5.0) == 0
        assert spool.prune(before_s=5.1) == 1
        assert [one.seq for one in spool.messages(9)] == [3, 2]
        # Numbers are not given twice, or a sink's place in the order would be lost.
        put(spool, message_of(4))
        assert spool.messages(1)[0].seq == 4


def test_above_its_bound_updates_go_and_alerts_never(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        put(spool, *[message_of(n) for n in range(4)])
        put(spool, *[message_of(n, "update") for n in range(4)], sinks=("a",))
        assert spool.bound(8) == 0
        assert spool.bound(6) == 2
        assert spool.num_waiting() == {"a": 6, "b": 4}
        assert spool.bound(1) == 2
        assert spool.num_waiting() == {"a": 4, "b": 4}
        assert spool.counts() == {"updates dropped": 4}


def test_alerts_that_were_never_updated_are_found(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        put(spool, message_of(1), message_of(2), message_of(1, "update"), message_of(3, "end"))
        assert [one.id for one in spool.without_update()] == [message_of(2).id]
        found = spool.message(message_of(2).id)
        assert found is not None
        assert found.seq == 2
        assert spool.message("none") is None


def test_pages_of_messages(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        put(spool, *[message_of(n) for n in range(5)])
        assert [one.seq for one in spool.messages(2)] == [5, 4]
        assert [one.seq for one in spool.messages(2, before=4)] == [3, 2]


def test_what_waits_for_a_sink_that_is_no_more_can_be_let_go(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        put(spool, message_of(1), message_of(2))
        assert spool.forget_sink("b") == 2
        assert spool.num_waiting() == {"a": 2}


def test_many_threads_put_and_take(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        errors: list[BaseException] = []

        def work(first: int) -> None:
            try:
                for number in range(first, first + 10):
                    put(spool, message_of(number), sinks=(str(first),))
                    head = spool.head(str(first))
                    assert head is not None
                    spool.delivered(str(first), head.seq)
            except BaseException as error:  # noqa: BLE001 - shown by the test
                errors.append(error)

        threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(spool.messages(99)) == 40
        assert spool.num_waiting() == {}


def test_a_full_disk_asks_for_room_until_there_is_none(tmp_path: Path) -> None:
    asked = []
    with Spool(tmp_path) as spool:
        put(spool, message_of(0))
        pages = spool._connection.execute("PRAGMA page_count").fetchone()[0]
        spool._connection.execute(f"PRAGMA max_page_count = {pages}")

        def free() -> bool:
            asked.append(True)
            if len(asked) == 3:  # the room that was made is enough at last
                spool._connection.execute("PRAGMA max_page_count = 1000000")
            return True

        spool.free = free
        big = message_of(1, description="x" * 20_000)
        assert put(spool, big) == 1
        assert len(asked) == 3
        pages = spool._connection.execute("PRAGMA page_count").fetchone()[0]
        spool._connection.execute(f"PRAGMA max_page_count = {pages}")
        spool.free = lambda: False
        with pytest.raises(LedgerError, match="make room"):
            put(spool, message_of(2, description="x" * 20_000))
        assert spool.message(big.id) is not None
        assert spool.message(message_of(2).id) is None


def test_a_log_that_is_always_worth_shrinking_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrunk = []

    def shrink() -> bool:  # what was tried and taken back lay in it
        shrunk.append(True)
        assert len(shrunk) < 10
        return True

    with Spool(tmp_path) as spool:
        pages = spool._connection.execute("PRAGMA page_count").fetchone()[0]
        spool._connection.execute(f"PRAGMA max_page_count = {pages}")
        monkeypatch.setattr(spool, "_shrink_log", shrink)
        spool.free = iter([True, False]).__next__
        with pytest.raises(LedgerError, match="make room"):
            put(spool, message_of(1, description="x" * 20_000))
        assert len(shrunk) == 2  # at first, and after room was made


def test_another_fault_than_a_full_disk_asks_for_no_room(tmp_path: Path) -> None:
    with Spool(tmp_path, free=lambda: pytest.fail("asked for room")) as spool:
        other = sqlite3.connect(tmp_path / NAME)
        other.execute("DROP TABLE waiting")
        other.commit()
        other.close()
        with pytest.raises(LedgerError):
            put(spool, message_of(1))
