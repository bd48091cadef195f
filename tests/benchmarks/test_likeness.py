"""The benchmark of the warning runs, tells kinds of footage apart, and would notice an alarm."""

import json

import likeness
import numpy as np
import pytest


def test_some_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    status = likeness.main(["--check"])
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (status, row["passed"]) == (0, True)
    kinds = {f"{split} {kind}" for split in likeness.HELD_OUT for kind in ("arrays", "files")}
    assert set(row["worlds"]) == kinds
    assert {figures["clips"] for figures in row["worlds"].values()} == {3}
    assert row["others"] == {name: {"called_unlike": True} for name in likeness.made_up()}


def test_an_alarm_and_a_miss_are_noticed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likeness, "measure_others", lambda *_: {})
    monkeypatch.setattr(
        likeness, "measure_worlds", lambda *_: {"heldout arrays": {"clips": 100, "alarms": 2}}
    )
    assert likeness.main([]) == 1
    monkeypatch.setattr(likeness, "measure_worlds", lambda *_: {})
    monkeypatch.setattr(likeness, "measure_others", lambda *_: {"a": {"called_unlike": False}})
    assert likeness.main([]) == 1
    monkeypatch.setattr(likeness, "measure_others", lambda *_: {})
    assert likeness.main([]) == 0
    capsys.readouterr()


def test_pieces_are_windows_of_the_picture() -> None:
    frames = np.arange(2 * 40 * 60 * 3, dtype=np.int64).reshape(2, 40, 60, 3)
    pieces = list(likeness.pieces_of(frames, 0))
    assert len(pieces) == 30
    for piece in pieces:
        assert 10 <= piece.shape[1] <= 20
        assert 15 <= piece.shape[2] <= 30
        top, left = divmod(int(piece[0, 0, 0, 0]) // 3, 60)
        rows, columns = piece.shape[1:3]
        assert np.array_equal(piece, frames[:, top : top + rows, left : left + columns])
