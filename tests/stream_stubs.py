"""A stream's process that misbehaves in the way its address names."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from llava_video.video.sandbox_channel import Channel, end_with

OPENED = {"is": "opened", "codec": "h264", "recorded_at_s": None, "duration_s": 0.0}
FRAME = {
    "is": "frame",
    "slot": 0,
    "pts_s": 0.0,
    "lag_s": 0.0,
    "now_s": 0.0,
    "wall_s": 0.0,
    "is_same": False,
    "odd": [],
    "unroomed": 0,
}


def main(words: Mapping[str, Any]) -> None:
    end_with(int(words["lifeline"]))
    channel = Channel(socket.socket(fileno=int(words["line"])), takes_descriptors=True)
    channel.send({"is": "ready"})
    message = channel.receive()
    assert message is not None
    deed = message.values["address"]["url"].removeprefix("tcp://").partition(":")[0]
    if deed == "mute":
        time.sleep(1000)
    channel.send(OPENED)
    if deed == "crashes":
        os.abort()
    if deed == "lies":
        channel.send(FRAME)
    if deed == "wants-much":
        channel.send({"is": "size", "height_px": 10**6, "width_px": 10**6})
    if deed == "shows":
        channel.send({"is": "size", "height_px": 4, "width_px": 6})
        ring = channel.receive()
        assert ring is not None
        assert ring.values["do"] == "ring"
        channel.send(FRAME)
    time.sleep(1000)
