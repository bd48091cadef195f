"""The one table of optional and heavy packages: what each gives, its extra, how to load it.

The only file that asks whether a package is installed. Probing reads metadata; nothing is imported
until `require`.
"""

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from dataclasses import dataclass
from types import ModuleType

from llava_video.errors import BackendMissingError


@dataclass(frozen=True, slots=True)
class Backend:
    """One package: how it is imported and installed, and what it is for.

    Attributes:
        module: the name it is imported by.
        distribution: the name it is installed by.
        least: the oldest version that works.
        extra: the extra of this library that brings it; "" when the base install does.
        gives: what it is for, a few words.
        stand_in: another distribution of the same module, for platforms the first has no wheel for.
    """

    module: str
    distribution: str
    least: str
    extra: str
    gives: str
    stand_in: str = ""


BACKENDS: dict[str, Backend] = {
    backend.module: backend
    for backend in (
        Backend("torch", "torch", "2.9", "", "the model"),
        Backend("transformers", "transformers", "5.17", "", "training and parity tests"),
        Backend("av", "av", "15", "", "probing every file and decoding most"),
        Backend("decord", "decord", "0.6", "", "decoding of plain H.264 and VP9", "eva-decord"),
        Backend("triton", "triton", "3.5", "", "GPU kernels"),
        Backend(
            "accelerate", "accelerate", "1.10", "", "training, and one model over several GPUs"
        ),
        Backend("llguidance", "llguidance", "1.0", "", "answers constrained to a schema"),
        Backend("huggingface_hub", "huggingface_hub", "1.0", "", "checkpoints by name"),
        Backend("flash_attn", "flash-attn", "2.8", "flash", "flash-attn attention on GPUs"),
        Backend("torchcodec", "torchcodec", "0.8", "torchcodec", "a third video reader"),
        Backend("fsspec", "fsspec", "2025.3", "cloud", "files in object stores"),
        Backend("s3fs", "s3fs", "2025.3", "cloud", "s3:// addresses"),
        Backend("gcsfs", "gcsfs", "2025.3", "cloud", "gs:// addresses"),
        Backend("paho", "paho-mqtt", "2.0", "monitor", "alerts to MQTT brokers"),
        Backend("ray", "ray", "2.49", "archive", "archives on the machines of a cluster"),
        Backend("pynvml", "nvidia-ml-py", "12", "archive", "how busy a GPU's driver says it is"),
        Backend("prometheus_client", "prometheus-client", "0.20", "monitor", "a watch's /metrics"),
        Backend("pyarrow", "pyarrow", "20", "eval", "tables of benchmarks in Parquet files"),
        Backend("peft", "peft", "0.21", "train", "low-rank training (LoRA)"),
        Backend("deepspeed", "deepspeed", "0.17", "train", "training over many GPUs (ZeRO)"),
        Backend("tensorboard", "tensorboard", "2.14", "train", "curves of a training run"),
        Backend("torchao", "torchao", "0.14", "int4", "int4 weights on GPUs without Triton"),
    )
}

# Modules whose version was looked at: reading it takes a millisecond, which opening a small video
# takes too.
_checked: dict[Backend, ModuleType] = {}


def version(name: str) -> str | None:
    """Return the installed version of a package of the table; None when it is absent."""
    backend = BACKENDS[name]
    if importlib.util.find_spec(backend.module) is None:
        return None
    for distribution in filter(None, (backend.distribution, backend.stand_in)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def require(name: str) -> ModuleType:
    """Import a package of the table.

    Raises:
        BackendMissingError: when it is absent, too old or does not import; the hint is the pip
            command.
    """
    backend = BACKENDS[name]
    here = sys.modules.get(backend.module)
    if here is not None and _checked.get(backend) is here:
        return here
    _checked[backend] = module = _import_checked(backend)
    return module


def _import_checked(backend: Backend) -> ModuleType:
    what = f"{backend.distribution} ({backend.gives})"
    wanted = f"llava_video[{backend.extra}]" if backend.extra else backend.distribution
    hint = f'pip install --upgrade "{wanted}"'
    found = version(backend.module)
    if found is None:
        raise BackendMissingError(f"{what} is not installed.", hint)
    if _release(found) < _release(backend.least) and found != "unknown":
        raise BackendMissingError(f"{what} is {found}, at least {backend.least} is needed.", hint)
    try:
        return importlib.import_module(backend.module)
    except (ImportError, OSError) as cause:  # OSError: a shared library of the package is missing
        raise BackendMissingError(f"{what} cannot be imported: {cause}.", hint) from cause


def _release(text: str) -> tuple[int, ...]:
    """Turn a version into numbers that compare: "2.13.0+cpu" -> (2, 13, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
