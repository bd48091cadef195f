"""The frames of a visual → data URIs, as a server takes them; those of the last visuals are kept.

A second question about the same frames decodes and encodes nothing. Knows no server.
"""

import base64
import io
import threading
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from PIL import Image

from llava_video.engine.request import VisualPart
from llava_video.errors import DecodeError
from llava_video.remote.settings import RemoteSettings
from llava_video.values import VisualPlan
from llava_video.video.clips import Frame

# From here on JPEG keeps colours at every pixel.
_WHOLE_COLOURS_QUALITY = 90


class Pictures:
    """Encodes frames; any thread may ask.

    Args:
        settings: how.
        tile_px: side of what the planned model sees, px.
    """

    def __init__(self, settings: RemoteSettings, tile_px: int) -> None:
        self._settings, self._tile_px = settings, tile_px
        self._kept: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def kept(self, visual: VisualPart) -> tuple[str, ...] | None:
        """Return a visual's pictures where they are kept."""
        with self._lock:
            found = self._kept.get(visual.key)
            if found is not None:
                self._kept.move_to_end(visual.key)
            return found

    def keep(self, visual: VisualPart, pictures: tuple[str, ...]) -> None:
        """Keep a visual's pictures; the oldest go where there are too many."""
        with self._lock:
            self._kept[visual.key] = pictures
            self._kept.move_to_end(visual.key)
            sizes = {key: sum(map(len, one)) for key, one in self._kept.items()}
            while sum(sizes.values()) > self._settings.kept_bytes:
                del sizes[self._kept.popitem(last=False)[0]]

    def encode(self, visual: VisualPart) -> Iterator[list[str]]:
        """Yield a visual's pictures, a clip at a time.

        Raises:
            DecodeError: frames are missing. Otherwise as its clips.
        """
        num_frames = 0
        for clip in visual.clips():
            num_frames += len(clip.frames)
            yield [self._picture(frame, visual.plan) for frame in clip.frames]
        if num_frames != visual.plan.num_frames:
            raise DecodeError(
                f"{visual.plan.num_frames} frames were planned, {num_frames} came.", "plan again."
            )

    def _picture(self, frame: Frame, plan: VisualPlan) -> str:
        picture = Image.fromarray(np.ascontiguousarray(frame))
        size = self._size(frame.shape[0], frame.shape[1], plan)
        if size != picture.size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        file, settings = io.BytesIO(), self._settings
        is_jpeg = settings.picture == "jpeg" or settings.sends == "video"
        if is_jpeg:
            quality = settings.jpeg_quality
            thinning = 0 if quality >= _WHOLE_COLOURS_QUALITY else 2
            picture.save(file, "JPEG", quality=quality, subsampling=thinning)
        else:
            picture.save(file, "PNG", compress_level=1)
        text = base64.b64encode(file.getbuffer()).decode("ascii")
        return f"data:image/{'jpeg' if is_jpeg else 'png'};base64,{text}"

    def _size(self, height_px: int, width_px: int, plan: VisualPlan) -> tuple[int, int]:
        """Return (width, height) that a frame is sent with; nothing is magnified."""
        wanted = self._settings.frame_px
        if wanted == "whole":
            return width_px, height_px
        if wanted == "auto":
            # An overview is one tile, and sees no more than the grid does.
            grid_px = (plan.grid.rows * self._tile_px, plan.grid.cols * self._tile_px)
            factor = max(grid_px[0] / height_px, grid_px[1] / width_px)
        else:
            factor = wanted / min(height_px, width_px)
        if factor >= 1:
            return width_px, height_px
        return max(1, round(width_px * factor)), max(1, round(height_px * factor))
