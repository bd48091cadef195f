"""Reads every tenth frame of a long video with decord, idling in between: what does memory do?

A script, so that nobody else's memory is measured: PATH. Prints one JSON object.
"""

import json
import sys
import time

import psutil

from llava_video.video.decode_decord import DecordReader
from llava_video.video.probe import probe
from llava_video.video.source import open_source
from llava_video.world.bars import read_index


def main(path: str) -> dict[str, object]:
    """Return the indices that were read, and the bytes the process grew by since the first."""
    source = open_source(path)
    reader = DecordReader(source, probe(source))
    frames = reader.frames(list(range(0, 400, 10)))
    process = psutil.Process()
    seen = [read_index(next(frames)[1])]
    before_bytes = process.memory_info().rss
    time.sleep(0.5)
    seen += [read_index(frame) for _, frame in frames]
    time.sleep(0.5)
    growth_bytes = process.memory_info().rss - before_bytes
    reader.close()
    return {"seen": seen, "growth_bytes": growth_bytes}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
