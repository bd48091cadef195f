"""`llava-video probe`: videos → what is known of them from at most their first frames."""

import json
from collections.abc import Iterator

import click

from llava_video.cli.command import command, option
from llava_video.cli.console import Console
from llava_video.cli.inputs import exit_status
from llava_video.cli.options import sandbox_option
from llava_video.config import to_mapping
from llava_video.errors import LlavaVideoError
from llava_video.values import VideoInfo
from llava_video.video.decoder import Decoder, open_decoder
from llava_video.video.sandbox import open_sandboxed
from llava_video.video.source import open_source


@command("probe")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@option("--json", "as_json", is_flag=True, help="One line of JSON per file.")
@sandbox_option()
@click.pass_obj
def probe(console: Console, /, files: tuple[str, ...], as_json: bool, sandbox: bool | None) -> int:
    """Say what videos are, decoding at most their first frames.

    Length, frames, size as shown, which reader is chosen and why, and what is odd or broken. The
    first frames say how the picture is turned, and check the reader.
    """  # fmt: skip
    num_failed = num_shown = 0
    for file in files:
        try:
            source = open_source(file)
            with open_sandboxed(source) if sandbox else open_decoder(source) as decoder:
                text = _json(decoder, source.name) if as_json else _table(decoder, source.name)
        except LlavaVideoError as error:
            num_failed += 1
            console.error(error, about=file if len(files) > 1 else "")
            continue
        click.echo(text if as_json or not num_shown else f"\n{text}")
        num_shown += 1
    return exit_status(num_failed, len(files))


def _json(decoder: Decoder, name: str) -> str:
    values = to_mapping(decoder.info)
    del values["pts_s"], values["packet_idxs"]  # an hour at 30 per second is 108,000 numbers
    return json.dumps(
        {"source": name, **values, "reader": decoder.backend, "reader_reason": decoder.reason},
        ensure_ascii=False,
    )


def _table(decoder: Decoder, name: str) -> str:
    facts = _facts(decoder.info, name)
    facts["reader"] = f"{decoder.backend}: {decoder.reason}"
    rows = [*facts.items(), *(("fault", fault) for fault in decoder.info.faults)]
    return "\n".join(f"{heading:<9} {words}" for heading, words in rows)


def _facts(info: VideoInfo, name: str) -> dict[str, str]:
    length = "of unknown length" if info.duration_s is None else _clock(info.duration_s)
    rate = "" if info.frame_rate_hz is None else f", {info.frame_rate_hz:.4g} per second"
    container, pixels = info.container.split(",")[0], info.pixel_format or "unknown pixels"
    num_keys = len(info.keyframe_idxs)
    keyframes = f"{num_keys:,} keyframe" + ("" if num_keys == 1 else "s")
    return {
        "video": name,
        "length": f"{length}, {info.num_frames:,} frames{rate}",
        "picture": f"{info.width_px} px wide, {info.height_px} px high" + "".join(_turned(info)),
        "format": f"{info.codec} in {container}, {pixels}, {keyframes}",
    }


def _turned(info: VideoInfo) -> Iterator[str]:
    if info.rotation_deg:
        yield f"; turned clockwise by {info.rotation_deg} degrees"
    if info.sample_aspect != 1:
        yield f"; stored pixels are {info.sample_aspect} as wide as high"


def _clock(duration_s: float) -> str:
    minutes, seconds = divmod(duration_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    clock = f"{hours}:{minutes:02d}:{seconds:05.2f}"
    return f"{duration_s:.2f} s" if duration_s < 60 else f"{clock} ({duration_s:.2f} s)"
