"""What the decoding processes of these tests open videos with."""

import os
import signal
from pathlib import Path
from typing import Any

from llava_video.video.decoder import Decoder, open_decoder
from llava_video.video.source import Source


def open_unless_poison(source: Source, **options: Any) -> Decoder:
    """Open a video; one whose name says poison kills the process."""
    if "poison" in Path(source.name).name:
        os.kill(os.getpid(), signal.SIGKILL)
    return open_decoder(source, **options)
