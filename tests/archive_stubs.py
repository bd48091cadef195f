"""What the decoding processes of these tests open videos with."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from llava_video.video.decoder import Decoder, open_decoder
from llava_video.video.source import Source


def open_unless_poison(source: Source, **options: Any) -> Decoder:
    """Open a video; one whose name says poison kills the process, hang stops it."""
    if "poison" in Path(source.name).name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in Path(source.name).name:
        time.sleep(3600)
    return open_decoder(source, **options)
