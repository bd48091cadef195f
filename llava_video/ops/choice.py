"""The implementation that `LLAVA_VIDEO_OPS` asks for, read once, on first use.

Knows no op and no torch, so that ops over NumPy arrays can ask it too.
"""

import functools
import os
from typing import Final, Literal, cast, get_args

from llava_video.errors import ConfigError

ENVIRONMENT_NAME: Final = "LLAVA_VIDEO_OPS"
Choice = Literal["auto", "reference", "native", "triton"]


@functools.cache
def choice() -> Choice:
    """Return what is asked for: "auto" takes the fastest that is there.

    "reference" keeps kernels and the native part off, "native" insists on the native part and
    keeps kernels off, "triton" insists on kernels. All but "auto" are for debugging.

    Raises:
        ConfigError: the variable holds something else.
    """
    asked = os.environ.get(ENVIRONMENT_NAME, "auto")
    if asked not in get_args(Choice):
        raise ConfigError(
            f"{ENVIRONMENT_NAME} = {asked!r}.", f"allowed: {', '.join(get_args(Choice))}."
        )
    return cast("Choice", asked)
