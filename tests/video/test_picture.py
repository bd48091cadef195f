import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_video.errors import SourceError
from llava_video.video.picture import check_header, read_picture

RED_GREEN = np.zeros((4, 6, 3), np.uint8)
RED_GREEN[:, :3, 0], RED_GREEN[:, 3:, 1] = 255, 255


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def test_every_way_to_hand_it_over(tmp_path: Path) -> None:
    content = _png(Image.fromarray(RED_GREEN))
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for address in (
        path,
        str(path),
        path.as_uri(),
        content,
        io.BytesIO(content),
        "data:image/png;base64," + base64.b64encode(content).decode(),
        Image.fromarray(RED_GREEN),
        RED_GREEN,
    ):
        picture = read_picture(address)
        assert picture.dtype == np.uint8
        assert (picture == RED_GREEN).all()


def test_grey_and_transparent_pictures_become_rgb() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for address in (grey, Image.fromarray(grey), _png(Image.fromarray(grey))):
        assert (read_picture(address) == grey[:, :, None]).all()
    see_through = np.dstack([RED_GREEN, np.zeros((4, 6), np.uint8)])
    assert (read_picture(_png(Image.fromarray(see_through))) == RED_GREEN).all()


# EXIF orientation -> what undoes it, written with numpy.
_UNDO = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, k=-1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, k=1),
}


@pytest.mark.parametrize("orientation", _UNDO)
def test_photographs_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    stored = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(stored).save(path, exif=exif)
    shown = read_picture(path)
    assert (shown == _UNDO[orientation](stored)).all()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (b"no picture at all", "no picture that Pillow reads"),
        (_png(Image.effect_noise((64, 64), 90))[:900], "damaged picture"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        ((np.zeros((2, 4, 4, 3), np.uint8), [0, 1]), "video, not a picture"),
        ("nothing.png", "No such file"),
        (None, "is no video"),
    ],
)
def test_what_is_no_picture(address: object, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_picture(address)


def test_a_picture_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    content = _png(Image.new("1", (200, 100)))
    for limit in (15_000, 5_000):  # Pillow warns of the first and refuses the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(SourceError, match="too many pixels"):
            read_picture(content)


def test_a_header_is_read_without_the_rest(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(_png(Image.fromarray(noise))[:-2000])
    check_header(path)
    with pytest.raises(SourceError, match="damaged picture"):
        read_picture(path)
    path.write_bytes(b"no picture")
    with pytest.raises(SourceError, match="no picture that Pillow reads"):
        check_header(path)
    with pytest.raises(SourceError, match=r"gone\.png"):
        check_header(tmp_path / "gone.png")
