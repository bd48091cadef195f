"""A file appears whole or not at all."""

import stat
from pathlib import Path

import pytest

from llava_video.files import replacing


@pytest.mark.parametrize("error", [RuntimeError("no power"), KeyboardInterrupt()])
def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_until_the_end_the_old_file_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
        assert unfinished.suffix == ".txt"  # writers tell the format by it
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_replaced_keeps_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a.txt"
    folder.mkdir()
    with pytest.raises(OSError, match=r"a\.txt"), replacing(folder) as unfinished:
        unfinished.write_text("new")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_has_the_permissions_any_new_file_has(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("new")
    (tmp_path / "plain").write_text("new")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "plain")}
    assert len(modes) == 1


def test_it_may_lie_elsewhere_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    path.parent.mkdir()
    with replacing(path, tmp_path) as unfinished:
        assert unfinished.parent == tmp_path
        unfinished.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path.parent]
