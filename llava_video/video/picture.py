"""A still picture (path, URL, bytes, PIL image, array) → (H, W, 3) uint8 RGB, upright.

Knows no model. The reference ignores the EXIF orientation of photographs and shows the model
pictures lying on their sides; here it is applied.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from llava_video.errors import SourceError
from llava_video.video.settings import FetchSettings
from llava_video.video.source import Source, open_source

_HINT = "pass a path, URL, bytes, PIL image, or (H, W, 3) uint8 array."
_DEFAULT_FETCH = FetchSettings()


def read_picture(
    address: Any, *, fetch_settings: FetchSettings = _DEFAULT_FETCH
) -> npt.NDArray[np.uint8]:
    """Read one picture.

    Args:
        address: path; http, https, s3, gs, file or data URL; bytes; binary file; PIL image; or an
            (H, W, 3) or (H, W) uint8 array. Transparency is dropped, of an animation the first
            picture is taken.
        fetch_settings: whom a download may ask, and its limits.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        SourceError: missing, empty, no picture, damaged, or too large to be one.
    """
    if isinstance(address, np.ndarray):
        return _from_array(address)
    if isinstance(address, Image.Image):
        return _upright(address, "the PIL image")
    source = open_source(address, fetch_settings=fetch_settings)
    if source.frames is not None:
        raise SourceError("frames with times are a video, not a picture.", _HINT)
    return _from_source(source)


def check_header(path: Path) -> None:
    """See that a file begins as a picture does, without decoding it.

    Raises:
        SourceError: missing, empty, no picture, or too large to be one.
    """
    with _opened(open_source(path)):
        pass


def _from_array(picture: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if picture.dtype != np.uint8 or 0 in picture.shape:
        raise SourceError(f"an array of shape {picture.shape}, {picture.dtype}.", _HINT)
    if picture.ndim == 2:
        return np.repeat(picture[:, :, None], 3, axis=2)
    if picture.ndim == 3 and picture.shape[2] == 3:
        return picture
    raise SourceError(f"an array of shape {picture.shape}.", _HINT)


def _from_source(source: Source) -> npt.NDArray[np.uint8]:
    with _opened(source) as picture:
        return _upright(picture, source.name)


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    reader = source.reader()
    try:
        with warnings.catch_warnings():
            # Pillow warns of pictures beyond 89 megapixels and refuses twice that: refuse both.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(reader) as picture:
                yield picture
    except UnidentifiedImageError as cause:
        raise SourceError(f"{source.name} is no picture that Pillow reads.", _HINT) from cause
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise SourceError(f"{source.name} has too many pixels.", "make it smaller.") from cause


def _upright(picture: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    try:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError) as cause:  # what Pillow's readers raise
        raise SourceError(
            f"{name} is a damaged picture: {cause}.", "check that it opens."
        ) from cause
