"""What is installed here → findings: a sentence on each package and part, and its absence's cost.

Tries things rather than asking for versions. Prints nothing.
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llava_video import __version__, backends
from llava_video.backends import BACKENDS, Backend
from llava_video.cores import num_cores
from llava_video.errors import BackendMissingError, CheckpointError, LlavaVideoError
from llava_video.model.packaged import demo_folder
from llava_video.ops.native import native_words
from llava_video.video.decoder import open_decoder
from llava_video.video.settings import BackendName
from llava_video.video.source import open_source
from llava_video.world.bars import paint_index, read_index
from llava_video.world.clip import write_clip

# What is lost without a package, and whether anything is left then.
_COSTS = {
    "torch": "Without it nothing is described; plan and probe work.",
    "av": "Without it no video is read.",
    "transformers": "Without it nothing is trained, and the parity tests do not run.",
    "decord": "Without it PyAV reads everything: the same frames.",
    "triton": "Without it plain PyTorch stands in for GPU kernels: the same answers.",
    "accelerate": "Without it a model has to fit on one GPU, and nothing is trained.",
    "llguidance": "Without it answers cannot be made to follow a JSON schema.",
    "huggingface_hub": "Without it models are read from folders only.",
    "flash_attn": "Without it SDPA does the attention: the same answers.",
    "torchcodec": "Without it PyAV and decord read everything; it is used only where it is named.",
    "fsspec": "Without it s3:// and gs:// addresses are not read.",
    "s3fs": "Without it s3:// addresses are not read.",
    "gcsfs": "Without it gs:// addresses are not read.",
    "paho": "Without it alerts are not sent to MQTT brokers; the other sinks work.",
    "prometheus_client": "Without it a watch's page has no /metrics.",
    "ray": "Without it archives run on this machine alone.",
    "pynvml": "Without it an archive's progress does not say how busy the GPU's driver says it is.",
    "pyarrow": "Without it `eval` reads no Parquet files; JSON, CSV and TSV are read.",
    "peft": "Without it stages train whole weights only, no low-rank changes (LoRA).",
    "deepspeed": "Without it a stage that names a DeepSpeed file is refused.",
    "tensorboard": "Without it a run's metrics are lines of JSON alone.",
    "torchao": "Without it int4 weights are slow on a GPU that has no Triton.",
}
_NEEDED = frozenset({"torch", "av"})
# Each reader's name for people, and its package.
_READERS: dict[BackendName, tuple[str, str]] = {
    "pyav": ("PyAV", "av"),
    "decord": ("decord", "decord"),
    "torchcodec": ("torchcodec", "torchcodec"),
}
_NUM_FRAMES = 24
_GIB = 2**30

State = Literal["ok", "absent", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        group: "program", "packages", "readers" or "machine".
        name: what was checked.
        state: "ok", "absent" (optional, not there) or "broken" (there and does not work).
        found: what is there, a version or a sentence.
        cost: what a gap costs; "" without one.
        remedy: the command that fills it; "" when there is none.
        is_fatal: whether nothing can be described because of it.
    """

    group: str
    name: str
    state: State
    found: str
    cost: str = ""
    remedy: str = ""
    is_fatal: bool = False


def check_everything() -> list[Finding]:
    """Run all checks, a few seconds."""
    return [
        *_check_program(),
        *(_check_package(backend) for backend in BACKENDS.values()),
        *_check_readers(),
        *_check_machine(),
    ]


def _check_program() -> Iterator[Finding]:
    python = f"{platform.python_version()} on {platform.system()}, {platform.machine()}"
    yield Finding(group="program", name="llava_video", state="ok", found=__version__)
    yield Finding(group="program", name="Python", state="ok", found=python)
    yield _check_demo_model()


def _check_demo_model() -> Finding:
    try:
        found = str(demo_folder())
    except CheckpointError as error:
        return Finding(
            group="program",
            name="demo model",
            state="absent",
            found=error.message,
            cost='Without it `llava-video demo` and model="demo" do not work.',
            remedy=error.hint,
        )
    return Finding(group="program", name="demo model", state="ok", found=found)


def _check_package(backend: Backend) -> Finding:
    name, version = backend.distribution, backends.version(backend.module)
    try:
        backends.require(backend.module)
    except BackendMissingError as error:
        is_absent = version is None
        return Finding(
            group="packages",
            name=name,
            state="absent" if is_absent else "broken",
            found=f"{backend.gives}." if is_absent else error.message,
            cost=_COSTS[backend.module],
            remedy=error.hint,
            is_fatal=backend.module in _NEEDED,
        )
    return Finding(group="packages", name=name, state="ok", found=version or "")


def _check_readers() -> Iterator[Finding]:
    """Write a clip whose frames tell their own index, and read it back with each reader."""
    with tempfile.TemporaryDirectory(prefix="llava_video_") as folder:
        clip = Path(folder) / "clip.mp4"
        try:
            write_clip(clip, (paint_index(idx, 96, 128) for idx in range(_NUM_FRAMES)))
        except (LlavaVideoError, OSError, ValueError) as error:  # PyAV without the encoder
            found = f"no clip could be written to try them: {error}"
            yield Finding(group="readers", name="clip", state="absent", found=found)
            return
        for reader in _READERS:
            yield _check_reader(clip, reader)


def _check_reader(clip: Path, reader: BackendName) -> Finding:
    name, package = _READERS[reader]
    is_needed, cost = package in _NEEDED, _COSTS[package]
    try:
        with open_decoder(open_source(clip), backend=reader) as decoder:
            times_s = decoder.info.pts_s.tolist()
            read = [
                read_index(frame) for piece in decoder.clips_at(times_s) for frame in piece.frames
            ]
    except BackendMissingError as error:
        # The package's own line says how to install it.
        state: State = "absent" if backends.version(package) is None else "broken"
        return Finding(group="readers", name=name, state=state, found=error.message, cost=cost,
                       is_fatal=is_needed)  # fmt: skip
    except LlavaVideoError as error:
        return Finding(group="readers", name=name, state="broken", found=error.message, cost=cost,
                       is_fatal=is_needed)  # fmt: skip
    is_exact = read == list(range(_NUM_FRAMES))
    num_right = sum(idx == own for own, idx in enumerate(read))
    return Finding(
        group="readers",
        name=name,
        state="ok" if is_exact else "broken",
        found=f"{num_right} of {_NUM_FRAMES} frames of a test clip are the right ones.",
        cost="" if is_exact else cost,
        is_fatal=is_needed and not is_exact,
    )


def _check_machine() -> Iterator[Finding]:
    yield Finding(group="machine", name="CPU", state="ok", found=_cpu_words())
    yield _check_native()
    yield _check_gpu()
    yield _check_kernels()
    yield _check_disk()


def _cpu_words() -> str:
    words = f"{num_cores()} cores"
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names:
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        words += f", {memory_bytes / _GIB:.1f} GiB of memory"
    return words + "."


def _check_native() -> Finding:
    """Ask the native part which instructions it runs on."""
    name, cost = (
        "native part",
        "Without it tiles take longer, and tokens on a CPU: the same answers.",
    )
    try:
        words = native_words()
    except BackendMissingError as error:  # LLAVA_VIDEO_OPS=native
        return Finding(group="machine", name=name, state="broken", found=error.message, cost=cost,
                       remedy=error.hint)  # fmt: skip
    if words is None:
        return Finding(group="machine", name=name, state="absent", found="none.", cost=cost)
    return Finding(group="machine", name=name, state="ok", found=f"runs on {words}.")


def _check_gpu() -> Finding:
    try:
        torch = backends.require("torch")
    except BackendMissingError as error:
        return Finding(group="machine", name="GPU", state="absent", found=error.message)
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        found = "none found." if built else f"PyTorch {torch.__version__} is built without one."
        cost = "Models run on the CPU in float32: a 0.5B takes 4 GiB of memory, a 7B 31 GiB."
        return Finding(group="machine", name="GPU", state="absent", found=found, cost=cost)
    each = [torch.cuda.get_device_properties(idx) for idx in range(torch.cuda.device_count())]
    words = [f"{gpu.name}, {gpu.total_memory / _GIB:.0f} GiB" for gpu in each]
    found = "; ".join(words) + f"; CUDA {torch.version.cuda}."
    return Finding(group="machine", name="GPU", state="ok", found=found)


def _check_kernels() -> Finding:
    """Ask Triton for the device it would compile for; without a GPU it has none."""
    name, cost = "Triton", _COSTS["triton"]
    try:
        torch, triton = backends.require("torch"), backends.require("triton")
    except BackendMissingError as error:
        return Finding(group="machine", name=name, state="absent", found=error.message, cost=cost)
    if not torch.cuda.is_available():
        found = "not used without a GPU."
        return Finding(group="machine", name=name, state="absent", found=found)
    try:
        target = triton.runtime.driver.active.get_current_target()
    except (RuntimeError, OSError, ImportError, AttributeError) as error:
        found = f"finds no device to compile for: {error}."
        return Finding(group="machine", name=name, state="broken", found=found, cost=cost)
    found = f"compiles for {target.backend} {target.arch}."
    return Finding(group="machine", name=name, state="ok", found=found)


def _check_disk() -> Finding:
    """Say how much room there is for checkpoints: a 7B takes 15 GiB."""
    try:
        hub = backends.require("huggingface_hub")
    except BackendMissingError as error:
        return Finding(group="machine", name="model cache", state="absent", found=error.message)
    folder = Path(hub.constants.HF_HUB_CACHE)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    offline = "; offline mode is on" if hub.constants.HF_HUB_OFFLINE else ""
    found = f"{folder}, {free_bytes / _GIB:.0f} GiB free (a 7B takes 15){offline}."
    return Finding(group="machine", name="model cache", state="ok", found=found)
