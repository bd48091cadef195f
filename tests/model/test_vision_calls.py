"""Vision calls of fewer tiles where memory is short: how many, when it ends, what is said."""

import logging
import weakref

import pytest
import torch

from llava_video.errors import CapacityError, ConfigError
from llava_video.model.vision_calls import VisionCalls

CPU = torch.device("cpu")


def attempts(calls: VisionCalls, num_frames: int, tiles_per_frame: int, room_tiles: int):
    """Encode frames where more than `room_tiles` tiles find no memory; return each call's sizes."""
    tried: list[tuple[int, int]] = []
    left = num_frames
    while left:
        together = min(left, calls.num_frames)

        def encode(together: int = together) -> int:
            tried.append((together, calls.tile_chunk))
            if min(calls.tile_chunk, together * tiles_per_frame) > room_tiles:
                raise torch.OutOfMemoryError("tried to allocate 2.00 GiB.")
            return together

        left -= calls.attempt(encode, together) or 0
    return tried


@pytest.mark.parametrize(
    ("tile_chunk", "tiles_per_frame", "room_tiles", "expected"),
    [
        # (frames, tiles of a call): halved until they fit, and so for the rest.
        (16, 1, 16, [(16, 16), (4, 16)]),
        (16, 1, 5, [(16, 16), (8, 8), *[(4, 4)] * 5]),
        (16, 7, 7, [(2, 16), *[(1, 7)] * 20]),
        (16, 7, 2, [(2, 16), (1, 7), (1, 3), *[(1, 1)] * 20]),
        (3, 1, 1, [(3, 3), *[(1, 1)] * 20]),
    ],
)
def test_calls_are_halved_until_they_fit(tile_chunk, tiles_per_frame, room_tiles, expected):
    calls = VisionCalls(tile_chunk, tiles_per_frame, CPU)
    assert attempts(calls, 20, tiles_per_frame, room_tiles) == expected


def test_a_call_smaller_than_the_chunk_is_halved_itself():
    """The last three frames of a video: the next try is of one tile, not of eight."""
    calls = VisionCalls(16, 1, CPU)
    assert attempts(calls, 3, 1, 2) == [(3, 16), (1, 1), (1, 1), (1, 1)]


def test_one_tile_too_many_is_a_capacity_error(caplog):
    calls = VisionCalls(4, 2, CPU)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(CapacityError, match=r"2 tile.*one tile a call.*2\.00 GiB") as raised,
    ):
        attempts(calls, 1, 2, 0)
    assert "max_running" in raised.value.hint
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)
    assert [record.getMessage() for record in caplog.records] == [
        "No memory for a vision call of 2 tiles: trying 1."
    ]


def test_what_is_free_on_a_gpu_is_said(monkeypatch):
    answers = {
        "mem_get_info": (2**29, 24 * 2**30),
        "memory_reserved": 0,
        "memory_allocated": 0,
        "get_per_process_memory_fraction": 1.0,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    with pytest.raises(CapacityError, match=r"512 MiB free"):
        attempts(VisionCalls(1, 1, torch.device("cuda", 1)), 1, 1, 0)


def test_what_a_failed_call_made_is_let_go():
    kept: list[weakref.ref] = []

    def encode() -> None:
        made = torch.zeros(3)
        kept.append(weakref.ref(made))
        raise torch.OutOfMemoryError("no")

    calls = VisionCalls(2, 1, CPU)
    assert calls.attempt(encode, 2) is None
    with pytest.raises(CapacityError) as raised:
        calls.attempt(encode, 1)
    assert raised.value.__cause__ is not None  # still held, and with it nothing else
    assert [ref() for ref in kept] == [None, None]


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("no"), KeyError("k")])
def test_other_errors_are_not_caught(error: Exception):
    def encode() -> None:
        raise error

    calls = VisionCalls(8, 1, CPU)
    with pytest.raises(type(error)):
        calls.attempt(encode, 8)
    assert calls.tile_chunk == 8


@pytest.mark.parametrize("tile_chunk", [0, -1])
def test_no_tiles_are_refused(tile_chunk: int):
    with pytest.raises(ConfigError, match="tile_chunk"):
        VisionCalls(tile_chunk, 1, CPU)


def test_frames_go_together_in_order_and_are_pulled_as_they_are_needed():
    """Ten frames of two tiles, no memory for more than three tiles: eight tiles, then four, two."""
    pulled: list[int] = []
    calls = VisionCalls(8, 2, CPU)

    def frames():
        for idx in range(10):
            pulled.append(idx)
            yield idx

    def encode(together: list[int]) -> tuple[list[int], int]:
        if min(calls.tile_chunk, 2 * len(together)) > 3:
            raise torch.OutOfMemoryError("tried to allocate 2.00 GiB.")
        return together, calls.tile_chunk

    results = calls.over(frames(), encode)
    assert next(results) == ([0], 2)
    assert pulled == [0, 1, 2, 3]
    assert [together for together, _ in results] == [[idx] for idx in range(1, 10)]


def test_no_frame_is_no_call():
    assert list(VisionCalls(2, 1, CPU).over(iter(()), len)) == []
