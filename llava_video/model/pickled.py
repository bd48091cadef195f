"""A `.bin` file of torch → its tensors by name, through torch's weights-only loader.

Such a file is a pickle in a zip archive. The loader builds tensors and plain containers and refuses
every other object, so nothing of the file is ever run. Knows no model, no index and no folder.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llava_video.errors import CheckpointError
from llava_video.model.memory import is_out_of_memory

_ZIP = b"PK\x03\x04"
# What torch.save wrote before 1.6: its magic number, pickled.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_DTYPE_WORDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")

_FETCH = "download it again; an interrupted download leaves such a file."
_OTHERS = "use a checkpoint with *.safetensors files; what this file holds is not loaded."


def read_pickled(path: Path, *, is_header: bool = False) -> dict[str, Tensor]:
    """Read the tensors of one file; they are views of it, mapped and not copied.

    Args:
        path: written by torch 1.6 or newer.
        is_header: shapes and dtypes only: tensors on the meta device, no weight is read.

    Returns:
        Name → tensor; the file stays mapped as long as any of them lives.

    Raises:
        CheckpointError: the file is cut off, in the old format or no such file at all, or holds
            anything but named tensors.
    """
    _check_archive(path)
    where = "meta" if is_header else "cpu"
    try:
        found = torch.load(path, map_location=where, mmap=True, weights_only=True)
    except pickle.UnpicklingError as cause:
        named = _GLOBAL.search(str(cause))
        what = named[1] if named else "objects"
        raise CheckpointError(
            f"{path} holds {what} beside tensors; only tensors are read.", _OTHERS
        ) from cause
    except Exception as cause:  # a pickle of a stranger may fail in any way
        if is_out_of_memory(cause):
            raise
        raise CheckpointError(
            f"{path} is damaged: torch cannot read it ({type(cause).__name__}).", _FETCH
        ) from cause
    return _named_tensors(path, found, is_header=is_header)


def dtype_word(dtype: torch.dtype) -> str:
    """Spell a dtype as safetensors does ("BF16"); torch's own word for one that is no weight's."""
    return _DTYPE_WORDS.get(dtype, str(dtype).removeprefix("torch."))


def _check_archive(path: Path) -> None:
    """See that the file is a whole archive whose entries can be mapped as they are."""
    with path.open("rb") as file:
        head = file.read(len(_LEGACY))
    if head == _LEGACY:
        raise CheckpointError(
            f"{path} is in torch's format of before 1.6 (no zip archive).",
            "save it again with a newer torch: "
            "torch.save(torch.load(path, weights_only=True), path).",
        )
    if head and not head.startswith(_ZIP):
        raise CheckpointError(
            f"{path} begins with {head[:8]!r}: it was not written by torch.save.", _OTHERS
        )
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as cause:
        raise CheckpointError(
            f"{path} is truncated or damaged ({path.stat().st_size} bytes): {cause}.", _FETCH
        ) from cause
    if any(Path(entry.filename).name == "constants.pkl" for entry in entries):
        raise CheckpointError(f"{path} is a TorchScript program; only tensors are read.", _OTHERS)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{path} is compressed, which torch.save never does.", _OTHERS)


def _named_tensors(path: Path, found: Any, *, is_header: bool) -> dict[str, Tensor]:
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(found).__name__}, expected a dict of tensors.", _OTHERS
        )
    for name, value in found.items():
        if not is_header and isinstance(value, Tensor) and value.is_meta:
            raise CheckpointError(
                f"{path} holds {name!r} without its numbers: it was saved on the meta device.",
                "save it again where the weights are, or fetch another copy.",
            )
        if not isinstance(name, str) or not _is_plain(value):
            kind = f"{value.layout} tensor" if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(
                f"{path} holds a {kind} at {name!r}, expected tensors by name only.", _OTHERS
            )
    return {name: value.detach() for name, value in found.items()}


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized
