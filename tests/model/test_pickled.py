"""A `.bin` file gives its tensors, and nothing else it may hold is ever built or run."""

import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llava_video.errors import CheckpointError
from llava_video.model import pickled
from llava_video.model.pickled import dtype_word, read_pickled


def write(path: Path, value: object, **options: object) -> Path:
    torch.save(value, path, **options)
    return path


def test_tensors_come_back_as_they_were_saved(tmp_path: Path):
    saved = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16)),
        "c": torch.arange(6.0).reshape(2, 3).t(),  # a view with its own strides
    }
    path = write(tmp_path / "x.bin", OrderedDict(saved))
    found = read_pickled(path)
    assert list(found) == list(saved)
    assert all(torch.equal(found[name], tensor) for name, tensor in saved.items())
    assert not any(tensor.requires_grad for tensor in found.values())


def test_a_header_has_shapes_and_dtypes_and_no_numbers(tmp_path: Path):
    path = write(tmp_path / "x.bin", {"a": torch.zeros(2, 3, dtype=torch.float16)})
    (tensor,) = read_pickled(path, is_header=True).values()
    assert (tensor.shape, tensor.dtype, tensor.is_meta) == ((2, 3), torch.float16, True)


def test_a_tensor_without_numbers_is_refused_when_it_is_read(tmp_path: Path):
    path = write(tmp_path / "x.bin", {"a": torch.zeros(2, 3, device="meta")})
    assert read_pickled(path, is_header=True)["a"].shape == (2, 3)
    with pytest.raises(CheckpointError, match="'a' without its numbers"):
        read_pickled(path)


class Command:
    """What an attacker saves: unpickling it would run a command."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.flag}",)


def test_code_in_a_file_is_named_and_not_run(tmp_path: Path):
    flag = tmp_path / "was_run"
    path = write(tmp_path / "x.bin", {"a": torch.zeros(2), "b": Command(flag)})
    for is_header in (True, False):
        with pytest.raises(CheckpointError, match=r"holds \w+\.system beside tensors") as caught:
            read_pickled(path, is_header=is_header)
        assert "weights_only" not in str(caught.value)  # torch's own words advise to run it
    assert not flag.exists()
    torch.load(path, weights_only=False)  # the test would notice: this loader runs it
    assert flag.exists()


def compressed(path: Path) -> None:
    whole = write(path.with_suffix(".whole"), {"a": torch.zeros(99)})
    with zipfile.ZipFile(whole) as one, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as other:
        for name in one.namelist():
            other.writestr(name, one.read(name))


def cut(path: Path, num_kept: int) -> None:
    write(path, {"a": torch.zeros(999)})
    path.write_bytes(path.read_bytes()[:num_kept])


def with_a_bad_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02h\x07.")  # asks for a memo that was never kept
        archive.writestr("x/version", b"3\n")


WRONG: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "module": (lambda p: write(p, torch.nn.Linear(2, 2)), r"holds torch\.nn.*Linear", "safetens"),
    "list": (lambda p: write(p, [torch.zeros(2)]), "holds a list, expected a dict", "safetens"),
    "tensor": (lambda p: write(p, torch.zeros(2)), "holds a Tensor, expected a dict", "safetens"),
    "nested": (lambda p: write(p, {"sd": {"a": torch.zeros(2)}}), "a dict at 'sd'", "safetens"),
    "number": (lambda p: write(p, {"step": 3}), "a int at 'step'", "safetens"),
    "key": (lambda p: write(p, {3: torch.zeros(2)}), "at 3, expected tensors by name", "safetens"),
    "sparse": (lambda p: write(p, {"a": torch.eye(3).to_sparse()}), "sparse_coo tensor", "safete"),
    "legacy": (
        lambda p: write(p, {"a": torch.zeros(2)}, _use_new_zipfile_serialization=False),
        r"before 1\.6",
        "save it again",
    ),
    "script": (lambda p: torch.jit.script(torch.nn.Linear(2, 2)).save(p), "TorchScript", "safeten"),
    "text": (lambda p: p.write_text("weights " * 9), r"begins with b'weights ", "safetensors"),
    "empty": (lambda p: p.write_bytes(b""), r"truncated or damaged \(0 bytes\)", "download"),
    "head": (lambda p: cut(p, 400), r"truncated or damaged \(400 bytes\)", "download"),
    "tail": (lambda p: cut(p, -1), "truncated or damaged", "download"),
    "compressed": (compressed, "is compressed", "safetensors"),
    "bad pickle": (with_a_bad_pickle, "damaged: torch cannot read it", "download"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", WRONG)
def test_anything_but_a_flat_dict_of_tensors_is_refused(tmp_path: Path, kind: str):
    write_wrong, found, to_do = WRONG[kind]
    path = tmp_path / "x.bin"
    write_wrong(path)
    for is_header in (True, False):
        with pytest.raises(CheckpointError, match=found) as caught:
            read_pickled(path, is_header=is_header)
        assert to_do in caught.value.hint
        assert str(path) in caught.value.message


def test_no_memory_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    path = write(tmp_path / "x.bin", {"a": torch.zeros(2)})
    monkeypatch.setattr(pickled.torch, "load", full)
    with pytest.raises(MemoryError):
        read_pickled(path)


def test_dtypes_are_spelled_as_in_safetensors():
    words = [dtype_word(d) for d in (torch.float32, torch.bfloat16, torch.float16, torch.float64)]
    assert words == ["F32", "BF16", "F16", "F64"]
    assert dtype_word(torch.int8) == "int8"
