"""Describe and question long videos with the LLaVA family of models.

The public names of the library, each imported from its defining module on first use: importing
`llava_video` itself loads no other package and decides nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llava_video.api import LlavaVideo as LlavaVideo
    from llava_video.api import describe_video as describe_video
    from llava_video.api import load as load
    from llava_video.archive.runner import RunSummary as RunSummary
    from llava_video.archive.runner import run_archive as run_archive
    from llava_video.archive.settings import ArchiveSettings as ArchiveSettings
    from llava_video.connecting import connect as connect
    from llava_video.errors import BackendMissingError as BackendMissingError
    from llava_video.errors import BudgetError as BudgetError
    from llava_video.errors import CapacityError as CapacityError
    from llava_video.errors import CheckpointError as CheckpointError
    from llava_video.errors import ConfigError as ConfigError
    from llava_video.errors import DecodeError as DecodeError
    from llava_video.errors import LlavaVideoError as LlavaVideoError
    from llava_video.errors import ServerClosedError as ServerClosedError
    from llava_video.errors import ServerError as ServerError
    from llava_video.errors import ServerRefusedError as ServerRefusedError
    from llava_video.errors import SourceError as SourceError
    from llava_video.inputs import Picture as Picture
    from llava_video.inputs import Video as Video
    from llava_video.judging import Comparison as Comparison
    from llava_video.judging import Preference as Preference
    from llava_video.judging import Verdict as Verdict
    from llava_video.live import LiveWindow as LiveWindow
    from llava_video.model.card import ModelCard as ModelCard
    from llava_video.model.prompt import Turn as Turn
    from llava_video.options import Options as Options
    from llava_video.planning.plan_json import plan_from_json as plan_from_json
    from llava_video.planning.settings import Sampler as Sampler
    from llava_video.preview import plan_video as plan_video
    from llava_video.remote.settings import RemoteSettings as RemoteSettings
    from llava_video.values import Description as Description
    from llava_video.values import Plan as Plan
    from llava_video.values import VideoInfo as VideoInfo
    from llava_video.video.sandbox import DecoderPool as DecoderPool
    from llava_video.video.settings import SandboxSettings as SandboxSettings

__version__ = "0.1.0"

_DEFINED_IN = {
    "ArchiveSettings": "llava_video.archive.settings",
    "BackendMissingError": "llava_video.errors",
    "BudgetError": "llava_video.errors",
    "CapacityError": "llava_video.errors",
    "CheckpointError": "llava_video.errors",
    "Comparison": "llava_video.judging",
    "ConfigError": "llava_video.errors",
    "DecodeError": "llava_video.errors",
    "DecoderPool": "llava_video.video.sandbox",
    "Description": "llava_video.values",
    "LiveWindow": "llava_video.live",
    "LlavaVideo": "llava_video.api",
    "LlavaVideoError": "llava_video.errors",
    "ModelCard": "llava_video.model.card",
    "Options": "llava_video.options",
    "Picture": "llava_video.inputs",
    "Plan": "llava_video.values",
    "Preference": "llava_video.judging",
    "RemoteSettings": "llava_video.remote.settings",
    "RunSummary": "llava_video.archive.runner",
    "Sampler": "llava_video.planning.settings",
    "SandboxSettings": "llava_video.video.settings",
    "ServerError": "llava_video.errors",
    "ServerClosedError": "llava_video.errors",
    "ServerRefusedError": "llava_video.errors",
    "SourceError": "llava_video.errors",
    "Turn": "llava_video.model.prompt",
    "Verdict": "llava_video.judging",
    "Video": "llava_video.inputs",
    "VideoInfo": "llava_video.values",
    "connect": "llava_video.connecting",
    "describe_video": "llava_video.api",
    "load": "llava_video.api",
    "plan_from_json": "llava_video.planning.plan_json",
    "plan_video": "llava_video.preview",
    "run_archive": "llava_video.archive.runner",
}

__all__ = [
    "ArchiveSettings",
    "BackendMissingError",
    "BudgetError",
    "CapacityError",
    "CheckpointError",
    "Comparison",
    "ConfigError",
    "DecodeError",
    "DecoderPool",
    "Description",
    "LiveWindow",
    "LlavaVideo",
    "LlavaVideoError",
    "ModelCard",
    "Options",
    "Picture",
    "Plan",
    "Preference",
    "RemoteSettings",
    "RunSummary",
    "Sampler",
    "SandboxSettings",
    "ServerClosedError",
    "ServerError",
    "ServerRefusedError",
    "SourceError",
    "Turn",
    "Verdict",
    "Video",
    "VideoInfo",
    "__version__",
    "connect",
    "describe_video",
    "load",
    "plan_from_json",
    "plan_video",
    "run_archive",
]


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_DEFINED_IN[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
