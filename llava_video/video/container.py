"""A `Source` → an opened PyAV container, with FFmpeg's errors turned into ours.

Only file formats that hold one video are let in: playlists (HLS, DASH, concat) and picture patterns
name other files, and a file that calls itself a video must not make us open those.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llava_video.backends import require
from llava_video.errors import SourceError
from llava_video.video.source import Source

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

FILE_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,h264,hevc,"
    "vvc,m4v,av1,obu,ivf,vc1,h263,mjpeg,yuv4mpegpipe,mxf,nut,rm,dv,wtv,swf,mp3,wav,flac,aac,"
    "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)

_PADDING_PX = 64
_MOST_PIXELS = 2**31 - 1  # FFmpeg's own default

# Called at every packet, in whatever thread reads it.
_watches: list[Callable[[], None]] = []
# Called with every container, before anything is decoded.
_preparations: list[Callable[["InputContainer"], None]] = []


def watch_packets(watch: Callable[[], None]) -> None:
    """Have a function called at every packet that this process reads from now on.

    For processes that serve one video at a time: what the function raises ends the reading.
    """
    _watches.append(watch)


def prepare_containers(prepare: Callable[["InputContainer"], None]) -> None:
    """Have a function called with every container that this process opens from now on."""
    _preparations.append(prepare)


@contextlib.contextmanager
def open_container(source: Source) -> Iterator["InputContainer"]:
    """Open a source's container for reading; closed on leaving the block.

    Raises:
        SourceError: when it is no video file, is damaged beyond opening, or has gone.
        BackendMissingError: without PyAV.
    """
    av = require("av")
    reader = source.reader()
    address = f"file:{reader}" if isinstance(reader, str) else reader
    options = {"format_whitelist": FILE_FORMATS, "protocol_whitelist": "file"}
    try:
        container = av.open(address, options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as cause:
        raise _cannot_open(source, cause) from cause
    with container:
        for prepare in _preparations:
            prepare(container)
        yield container


def packets_of(container: "InputContainer", tracks: Sequence["Stream"]) -> Iterator["Packet[Any]"]:
    """Yield the packets of some tracks in file order, and empty ones at the end.

    Raises:
        av.error.FFmpegError: where reading stops before the end.
    """
    try:
        for packet in container.demux(list(tracks)):
            for watch in _watches:
                watch()
            yield packet
    except IndexError:
        # PyAV 18.1 trips over a track that begins midway (MPEG-TS) when the file ends.
        return


def limit_pixels(max_pixels: int, container: "InputContainer") -> None:
    """Have FFmpeg refuse larger frames, for streams that change their size midway.

    Args:
        max_pixels: of one frame; what the container itself declares is let pass.
        container: before anything is decoded.
    """
    for track in container.streams.video:
        context = track.codec_context
        if context is None:
            continue
        most = max_pixels
        if context.height * context.width <= max_pixels:
            # FFmpeg counts what it pads: 160 pixels as 192.
            most = max(most, (context.height + _PADDING_PX) * (context.width + _PADDING_PX))
        context.options = {**context.options, "max_pixels": str(min(most, _MOST_PIXELS))}


def _cannot_open(source: Source, cause: Exception) -> SourceError:
    head = _first_bytes(source)
    if head[4:8] == b"ftyp":
        return SourceError(
            f"{source.name} is an MP4 or MOV file without a readable index (moov): it was cut off "
            "while it was recorded or copied.",
            "copy it again, or repair it with a recovery tool and an intact file of that camera.",
        )
    if head and head.isascii() and b"\0" not in head:
        return SourceError(f"{source.name} is text, not a video.", "check what the file is.")
    reason = getattr(cause, "strerror", None) or str(cause)
    return SourceError(
        f"{source.name} cannot be opened as a video: {reason}.", "check that it plays elsewhere."
    )


def _first_bytes(source: Source) -> bytes:
    if source.content is not None:
        return source.content[:512]
    try:
        with open(source.path or "", "rb") as file:  # noqa: PTH123 - path may be None in theory
            return file.read(512)
    except OSError:
        return b""
