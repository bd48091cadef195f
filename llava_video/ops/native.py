"""The native part (`csrc/`), loaded once, on first use; and what it is in words.

It may be absent (`LLAVA_VIDEO_NATIVE=0` builds without it): each op has a plain twin beside it that
gives the same answer. Knows no op and no torch.
"""

import functools
import importlib
import logging
from types import ModuleType
from typing import Final

from llava_video.errors import BackendMissingError
from llava_video.ops.choice import choice

_log = logging.getLogger(__name__)

_MODULE: Final = "llava_video.ops._native"
_WORDS: Final = {"plain": "plain C++", "avx2": "AVX2", "avx512": "AVX-512"}
_HINT: Final = "pip install --force-reinstall --no-deps llava_video, without LLAVA_VIDEO_NATIVE=0."


@functools.cache
def native() -> ModuleType | None:
    """Return the module, or None where it is absent, broken or not asked for.

    Raises:
        BackendMissingError: `LLAVA_VIDEO_OPS=native`, and there is none.
    """
    asked = choice()
    if asked == "reference":
        return None
    try:
        return importlib.import_module(_MODULE)
    except ImportError as cause:
        if asked == "native":
            raise BackendMissingError(f"the native part cannot be used: {cause}.", _HINT) from cause
        if not isinstance(cause, ModuleNotFoundError):  # built, but for another machine or Python
            _log.warning(
                "the native part cannot be loaded, tiles and tokens take longer: %s", cause
            )
    return None


def native_words() -> str | None:
    """Return the fastest instructions that the native part uses here; None without it."""
    module = native()
    return None if module is None else _WORDS[module.instruction_sets()[-1]]
