"""Thumbnails with their times → one picture file, to see at a glance what a model saw.

Knows neither videos nor models.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from llava_video.errors import ConfigError, SourceError
from llava_video.files import replacing

_GAP_PX = 6
_CAPTION_PX = 16
_BACKGROUND, _INK = (24, 24, 24), (230, 230, 230)
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def write_contact_sheet(
    thumbnails: npt.NDArray[np.uint8],
    times_s: Sequence[float],
    path: str | os.PathLike[str],
    *,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
) -> None:
    """Write pictures in rows, each with its time underneath; the file appears whole or not at all.

    Args:
        thumbnails: (N, h, w, 3) uint8, RGB; N >= 1.
        times_s: N times, s.
        path: .png, .jpg or .webp; overwritten.
        columns: pictures in a row; None makes the sheet about as wide as it is high.
        captions: N texts that stand under the pictures instead of their times.

    Raises:
        ConfigError: no pictures, wrong shapes, columns < 1, another suffix.
        SourceError: the file cannot be written.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"{path.name!r} is no picture file.", f"suffixes: {', '.join(_FORMATS)}.")
    if thumbnails.ndim != 4 or thumbnails.shape[3] != 3 or thumbnails.dtype != np.uint8:
        shape = f"{thumbnails.shape}, {thumbnails.dtype}"
        raise ConfigError(f"thumbnails of shape {shape}.", "(N, h, w, 3) uint8.")
    if len(thumbnails) == 0 or len(thumbnails) != len(times_s):
        raise ConfigError(f"{len(thumbnails)} thumbnails, {len(times_s)} times.")
    if captions is not None and len(captions) != len(thumbnails):
        raise ConfigError(f"{len(thumbnails)} thumbnails, {len(captions)} captions.")
    if columns is not None and columns < 1:
        raise ConfigError(f"columns = {columns}.", "at least 1.")
    captions = captions or [clock_text(time_s) for time_s in times_s]
    _save(_sheet(thumbnails, captions, columns), path, kind)


def clock_text(time_s: float) -> str:
    """Write a time as people read it.

    >>> clock_text(3723.256)
    '1:02:03.26'
    >>> clock_text(59.999)
    '1:00.00'
    """
    hundredths = round(time_s * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    clock = f"{minutes}:{rest / 100:05.2f}"
    return f"{hours}:{clock.zfill(8)}" if hours else clock


def _sheet(
    thumbnails: npt.NDArray[np.uint8], captions: Sequence[str], columns: int | None
) -> Image.Image:
    num_pictures, height_px, width_px, _ = thumbnails.shape
    cell_height_px, cell_width_px = height_px + _CAPTION_PX + _GAP_PX, width_px + _GAP_PX
    if columns is None:
        columns = math.ceil(math.sqrt(num_pictures * cell_height_px / cell_width_px))
    columns = min(columns, num_pictures)
    rows = math.ceil(num_pictures / columns)
    size = (columns * cell_width_px + _GAP_PX, rows * cell_height_px + _GAP_PX)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for idx, (thumbnail, caption) in enumerate(zip(thumbnails, captions, strict=True)):
        row, column = divmod(idx, columns)
        left_px, top_px = _GAP_PX + column * cell_width_px, _GAP_PX + row * cell_height_px
        sheet.paste(Image.fromarray(np.ascontiguousarray(thumbnail)), (left_px, top_px))
        caption_at = (left_px + width_px / 2, top_px + height_px + _CAPTION_PX / 2)
        draw.text(caption_at, caption, fill=_INK, font=font, anchor="mm")
    return sheet


def _save(sheet: Image.Image, path: Path, kind: str) -> None:
    try:
        with replacing(path) as unfinished, unfinished.open("xb") as file:
            sheet.save(file, format=kind)
    except OSError as cause:
        reason = cause.strerror or str(cause)
        hint = "check that the folder exists and has room."
        raise SourceError(f"{path} cannot be written: {reason}.", hint) from cause
