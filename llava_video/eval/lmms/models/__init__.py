"""The table lmms-eval reads from a plugin."""

from llava_video.eval.lmms.names import AVAILABLE_MODELS

__all__ = ["AVAILABLE_MODELS"]
