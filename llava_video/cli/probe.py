"""`llava-video probe`: videos → what is known of them from packets and one frame."""

import dataclasses
import json
from collections.abc import Iterator

import click
import numpy as np

from llava_video.cli.command import command, option
from llava_video.cli.console import Console
from llava_video.cli.inputs import exit_status
from llava_video.cli.options import sandbox_option
from llava_video.config import to_mapping
from llava_video.errors import ConfigError, LlavaVideoError
from llava_video.values import VideoInfo
from llava_video.video.decoder import Decoder, open_decoder
from llava_video.video.probe import TrackInfo
from llava_video.video.sandbox import open_sandboxed
from llava_video.video.settings import FetchSettings
from llava_video.video.source import open_source


@command("probe")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@option("--json", "as_json", is_flag=True, help="One line of JSON per file.")
@option(
    "--times",
    "with_times",
    is_flag=True,
    help="The time of every frame as well, in s; with --json.",
)
@option("--allow-private", is_flag=True, help="Let URLs lead to private addresses.")
@sandbox_option()
@click.pass_obj
def probe(
    console: Console,
    /,
    files: tuple[str, ...],
    as_json: bool,
    with_times: bool,
    allow_private: bool,
    sandbox: bool | None,
) -> int:
    """Say what videos are, decoding one frame of each.

    Length, frames, size as shown, pixels, how a seek finds its way, which reader is chosen and why,
    and what is odd or broken. The first frame says how the picture is turned and stored.
    """  # fmt: skip
    if with_times and not as_json:
        raise ConfigError("--times without --json.", "add --json.")
    fetch_settings = FetchSettings(allow_private=allow_private)
    num_failed = num_shown = 0
    for file in files:
        try:
            source = open_source(file, fetch_settings=fetch_settings)
            with open_sandboxed(source) if sandbox else open_decoder(source) as decoder:
                text = (
                    _json(decoder, source.name, with_times=with_times)
                    if as_json
                    else _table(decoder, source.name)
                )
        except LlavaVideoError as error:
            num_failed += 1
            console.error(error, about=file if len(files) > 1 else "")
            continue
        click.echo(text if as_json or not num_shown else f"\n{text}")
        num_shown += 1
    return exit_status(num_failed, len(files))


def _json(decoder: Decoder, name: str, *, with_times: bool) -> str:
    # What a reader needs beyond `VideoInfo` is nobody else's business. The times are left out
    # unless asked for: of an hour at 30 per second they are 108,000 numbers.
    public = {field.name for field in dataclasses.fields(VideoInfo)}
    values = {key: value for key, value in to_mapping(decoder.info).items() if key in public}
    del values["pts_s"]
    if with_times:
        values["pts_s"] = decoder.info.pts_s.tolist()
    return json.dumps(
        {"source": name, **values, "reader": decoder.backend, "reader_reason": decoder.reason},
        ensure_ascii=False,
    )


def _table(decoder: Decoder, name: str) -> str:
    facts = _facts(decoder.info, name)
    if decoder.info.is_indexed is not None:
        facts["seeking"] = _seeking(decoder.info)
    facts["reader"] = f"{decoder.backend}: {decoder.reason}"
    rows = [*facts.items(), *(("fault", fault) for fault in decoder.info.faults)]
    return "\n".join(f"{heading:<9} {words}" for heading, words in rows)


def _facts(info: VideoInfo, name: str) -> dict[str, str]:
    length = "of unknown length" if info.duration_s is None else _clock(info.duration_s)
    rate = "" if info.frame_rate_hz is None else f", {info.frame_rate_hz:.4g} per second"
    container = info.container.split(",")[0]
    return {
        "video": name,
        "length": f"{length}, {_num(info.num_frames, 'frame')}{rate}{_unevenness(info)}",
        "picture": f"{info.width_px} px wide, {info.height_px} px high" + "".join(_turned(info)),
        "format": f"{info.codec} in {container}, {_pixels(info)}",
    }


def _unevenness(info: VideoInfo) -> str:
    """Say how far apart frames are where that differs by more than rounding."""
    if info.num_frames < 3:
        return ""
    gaps_s = np.diff(info.pts_s)
    least_s, most_s = float(gaps_s.min()), float(gaps_s.max())
    # Containers that count milliseconds put 30 frames a second 33 or 34 ms apart.
    if most_s - least_s <= max(2 * info.tick_s, 0.002):
        return ""
    return f", {1000 * least_s:.4g} to {1000 * most_s:.4g} ms apart"


def _pixels(info: VideoInfo) -> str:
    if info.pixel_format is None:
        return "unknown pixels"
    details = [] if info.bit_depth is None else [f"{info.bit_depth} bits"]
    details.append(f"{info.colour_range} range" if info.colour_range else "no range stated")
    return f"{info.pixel_format} ({', '.join(details)})"


def _seeking(info: VideoInfo) -> str:
    if isinstance(info, TrackInfo) and info.by_order:
        return "never: its frames are told by their order, from the first one on"
    how = "by index" if info.is_indexed else "by search, the file has no index"
    how += f"; {_num(len(info.keyframe_idxs), 'keyframe')}"
    if len(info.keyframe_idxs) < 2:
        return how
    return f"{how}, at most {np.diff(info.keyframe_idxs).max():,} frames apart"


def _num(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _turned(info: VideoInfo) -> Iterator[str]:
    if info.mirrored:
        yield "; mirrored left to right"
    if info.rotation_deg:
        yield f"; turned clockwise by {info.rotation_deg} degrees"
    if info.sample_aspect != 1:
        yield f"; stored pixels are {info.sample_aspect} as wide as high"


def _clock(duration_s: float) -> str:
    minutes, seconds = divmod(duration_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    clock = f"{hours}:{minutes:02d}:{seconds:05.2f}"
    return f"{duration_s:.2f} s" if duration_s < 60 else f"{clock} ({duration_s:.2f} s)"
