import gc
import threading
import time

import pytest

from llava_video.video.ahead import read_ahead


class Source:
    """An iterator of numbers that counts what was read of it, and by which threads."""

    def __init__(self, num_items, *, fail_at=None, error=None, wait=None):
        self.num_items, self.fail_at, self.error, self.wait = num_items, fail_at, error, wait
        self.num_read = self.num_closed = 0
        self.threads = set()
        self.read = threading.Condition()

    def __call__(self):
        try:
            for idx in range(self.num_items):
                if idx == self.fail_at:
                    raise self.error
                if self.wait is not None:
                    self.wait(idx)
                with self.read:
                    self.num_read += 1
                    self.threads.add(threading.current_thread())
                    self.read.notify_all()
                yield idx
        finally:
            self.num_closed += 1

    def wait_for(self, num_read):
        with self.read:
            assert self.read.wait_for(lambda: self.num_read >= num_read, timeout=10)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    gc.collect()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("max_items", [1, 2, 5, 100])
@pytest.mark.parametrize("num_items", [0, 1, 2, 50])
def test_items_come_in_order(num_items, max_items):
    source = Source(num_items)
    assert list(read_ahead(source(), max_items)) == list(range(num_items))
    assert source.num_closed == 1
    assert threading.current_thread() not in source.threads


def test_none_is_an_item_like_any_other():
    assert list(read_ahead(iter([None, 1, None]))) == [None, 1, None]


@pytest.mark.parametrize("max_items", [1, 2, 3])
def test_no_more_is_read_than_may_be_held(max_items):
    source = Source(50)
    items = read_ahead(source(), max_items)
    assert source.num_read == 0  # nothing happens before the first item is asked for
    for num_taken in range(1, 10):
        next(items)
        source.wait_for(num_taken + max_items)
        time.sleep(0.005)  # a reader without a bound would be far ahead by now
        assert source.num_read == num_taken + max_items
    items.close()
    assert source.num_closed == 1


def test_reading_and_using_overlap():
    """The second item is read while the first is still in use, which a plain iterator cannot."""
    source = Source(2)
    items = read_ahead(source())
    next(items)
    source.wait_for(2)
    assert list(items) == [1]


@pytest.mark.parametrize("error", [RuntimeError("the file ends here"), KeyboardInterrupt()])
def test_an_error_comes_after_the_items_before_it(error):
    source = Source(9, fail_at=3, error=error)
    items = read_ahead(source(), 5)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(error)) as raised:
        next(items)
    assert raised.value is error
    assert source.num_closed == 1


def test_an_error_of_closing_is_told():
    def stubborn():
        try:
            yield 1
            yield 2
        finally:
            raise OSError("cannot close")

    items = read_ahead(stubborn())
    next(items)
    with pytest.raises(OSError, match="cannot close"):
        items.close()


@pytest.mark.parametrize("num_taken", [1, 4])
def test_closing_ends_a_reader_that_waits_for_room(num_taken):
    source = Source(100)
    items = read_ahead(source(), 2)
    for _ in range(num_taken):
        next(items)
    source.wait_for(num_taken + 2)  # now it waits
    items.close()
    assert source.num_closed == 1
    assert source.num_read == num_taken + 2


def test_closing_waits_for_the_source_and_no_longer():
    """Whoever closes a decoder next must find nobody reading from it."""
    go_on = threading.Event()
    source = Source(100, wait=lambda idx: idx == 1 and go_on.wait(10))
    items = read_ahead(source())
    next(items)
    threading.Timer(0.05, go_on.set).start()
    items.close()
    assert go_on.is_set()
    assert source.num_closed == 1
    assert source.num_read == 2


def test_an_iterator_that_is_dropped_ends_its_reader():
    source = Source(100)
    items = read_ahead(source())
    next(items)
    del items
    gc.collect()
    assert source.num_closed == 1


def test_an_iterator_that_never_began_has_no_reader():
    source = Source(3)
    read_ahead(source()).close()
    assert source.num_read == 0


def test_what_is_given_is_not_held():
    class Item:
        pass

    items = read_ahead(Item() for _ in range(3))
    next(items)  # not bound: the reader must not keep it either
    gc.collect()
    assert sum(type(thing) is Item for thing in gc.get_objects()) <= 2
    items.close()
