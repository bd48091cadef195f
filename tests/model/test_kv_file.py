"""Tokens in a file: every bit of every format, read by others too, and refused where damaged."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava_video.errors import CapacityError, CheckpointError
from llava_video.model import kv_file
from llava_video.model.kv_cache import KvCache, KvSpan
from llava_video.model.kv_file import read_metadata, read_tokens, write_metadata, write_tokens
from llava_video.values import KvFormat

CPU = torch.device("cpu")
FORMATS = ("plain", "int8", "int4")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def new_cache(*sizes: int, **changes: object) -> KvCache:
    options = {"dtype": torch.float32, "devices": [CPU], "slab_tokens": 16} | changes
    return KvCache(*(sizes or (3, 2, 6)), **options)


def parts_of(cache: KvCache, layer_idx: int, span: KvSpan) -> dict[str, torch.Tensor]:
    stored = cache.stored(layer_idx, span)
    parts = {part: getattr(stored, part) for part in ("k", "v", "k_scales", "v_scales")}
    return {part: tensor for part, tensor in parts.items() if tensor is not None}


def noise(cache: KvCache, num_tokens: int, kv_format: KvFormat) -> KvSpan:
    """Reserve places and fill every bit of them at random, not-a-numbers among them."""
    span = cache.reserve(num_tokens, kv_format).span
    generator = torch.Generator().manual_seed(num_tokens)
    for layer_idx in range(cache.num_layers):
        for tensor in parts_of(cache, layer_idx, span).values():
            bits = tensor.view(torch.uint8)
            bits.copy_(torch.randint(256, bits.shape, generator=generator))
    return span


def bits_of(cache: KvCache, spans: list[KvSpan]) -> list[torch.Tensor]:
    bits = []
    for layer_idx in range(cache.num_layers):
        held = [parts_of(cache, layer_idx, span) for span in spans]
        bits += [torch.cat([one[part] for one in held]).view(torch.uint8) for part in held[0]]
    return bits


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.mark.parametrize("block_tokens", [4, 32_768])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kv_format", FORMATS)
def test_every_bit_comes_back_in_order(
    kv_format: KvFormat,
    dtype: torch.dtype,
    block_tokens: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(kv_file, "BLOCK_TOKENS", block_tokens)
    cache, path = new_cache(dtype=dtype), tmp_path / "kept.safetensors"
    first, second, third = (noise(cache, n, kv_format) for n in (5, 9, 20))
    spans = [third, KvSpan(0, 0, 0), first.part(1, 4), second]
    write_tokens(path, cache, spans, {"model": "tiny"})
    other = new_cache(dtype=dtype)
    noise(other, 3, kv_format)
    extent, metadata = read_tokens(path, other)
    assert metadata == {"model": "tiny"}
    assert (extent.num_tokens, other.format_of(extent.span)) == (32, kv_format)
    filled = [span for span in spans if span.num_tokens]
    assert equal(bits_of(other, [extent.span]), bits_of(cache, filled))
    assert not equal(bits_of(other, [extent.span]), bits_of(cache, filled[::-1]))
    other.release(extent)
    assert other.used_tokens == 3


@pytest.mark.parametrize("kv_format", FORMATS)
def test_others_can_read_the_file(kv_format: KvFormat, tmp_path: Path):
    """By safetensors' own reader; the names and shapes are those the docstring gives."""
    cache, path = new_cache(2, 3, 5 * 2), tmp_path / "kept.safetensors"
    span = noise(cache, 7, kv_format)
    write_tokens(path, cache, [span], {})
    tensors = load_file(path)
    expected = {
        f"layers.{layer_idx}.{part}": tensor
        for layer_idx in range(2)
        for part, tensor in parts_of(cache, layer_idx, span).items()
    }
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        assert tensors[name].dtype is tensor.dtype
        assert torch.equal(tensors[name].view(torch.uint8), tensor.view(torch.uint8))


def test_a_file_replaces_the_one_before_or_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache, path = new_cache(), tmp_path / "kept.safetensors"
    write_tokens(path, cache, [noise(cache, 4, "int8")], {})
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(kv_file, "_write_tensor", full)
        with pytest.raises(CheckpointError, match="No space left"):
            write_tokens(path, cache, [noise(cache, 5, "int8")], {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write_tokens(path, cache, [noise(cache, 5, "int8")], {})
    assert path.read_bytes() != before


def test_what_is_no_run_of_tokens_is_refused(tmp_path: Path):
    cache, path = new_cache(), tmp_path / "kept.safetensors"
    spans = [noise(cache, 2, "int8"), noise(cache, 2, "int4")]
    for wrong in ([], spans):
        with pytest.raises(ValueError, match="tokens of formats"):
            write_tokens(path, cache, wrong, {})
    with pytest.raises(ValueError, match="metadata"):
        write_tokens(path, cache, spans[:1], {"cache": "mine"})


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((4, 2, 6), "3 layers of 2 kv heads of 6 channels, this model has 4 layers"),
        ((3, 1, 6), "3 layers of 2 kv heads of 6 channels, this model has 3 layers of 1 kv"),
        ((3, 2, 12), "6 channels, this model has 3 layers of 2 kv heads of 12 channels"),
    ],
)
def test_a_model_of_other_sizes_is_refused(sizes: tuple[int, ...], words: str, tmp_path: Path):
    cache, path = new_cache(), tmp_path / "kept.safetensors"
    write_tokens(path, cache, [noise(cache, 4, "int4")], {})
    other = new_cache(*sizes)
    with pytest.raises(CheckpointError, match=words):
        read_tokens(path, other)
    assert other.held_tokens == 0


def test_plain_tokens_of_another_dtype_are_refused_and_quantised_ones_are_not(tmp_path: Path):
    cache, path = new_cache(), tmp_path / "kept.safetensors"
    half = new_cache(dtype=torch.bfloat16)
    write_tokens(path, cache, [noise(cache, 4, "plain")], {})
    with pytest.raises(CheckpointError, match="keys in float32, this cache is of bfloat16"):
        read_tokens(path, half)
    span = noise(cache, 4, "int8")
    write_tokens(path, cache, [span], {})
    extent, _ = read_tokens(path, half)
    assert equal(bits_of(half, [extent.span]), bits_of(cache, [span]))


def test_a_cache_without_room_keeps_nothing(tmp_path: Path):
    cache, path = new_cache(), tmp_path / "kept.safetensors"
    write_tokens(path, cache, [noise(cache, 9, "int8")], {})
    with pytest.raises(CapacityError):
        read_tokens(path, new_cache(limit_bytes=8 * cache.token_bytes("int8")))


def saved(tmp_path: Path) -> tuple[Path, bytes, dict]:
    """Return a file, its tensors' bytes and its header."""
    cache, path = new_cache(), tmp_path / "kept.safetensors"
    write_tokens(path, cache, [noise(cache, 9, "int8")], {"a": "b"})
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0  # the tensors' bytes are aligned
    return path, content[8 + length :], json.loads(content[8 : 8 + length])


@pytest.mark.parametrize("kept", [0, 5, 8, 100, -1])
def test_a_truncated_file_is_refused(kept: int, tmp_path: Path):
    path, _, _ = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    cache = new_cache()
    with pytest.raises(CheckpointError, match=r"truncated or damaged \(\d+ bytes\)"):
        read_tokens(path, cache)
    assert cache.held_tokens == 0


def test_an_absent_file_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"absent.safetensors .*\(no file\)"):
        read_tokens(tmp_path / "absent.safetensors", new_cache())
    with pytest.raises(CheckpointError):
        read_tokens(tmp_path, new_cache())


def rewritten(path: Path, header: dict, tensors: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_tokens": 0},
        {"num_tokens": 9.0},
        {"num_layers": True},
        {"kv_format": "int2"},
        {"kv_format": ["int8"]},
        {"more": 1},
        None,
    ],
)
def test_a_header_that_says_nothing_sensible_is_refused(changes: dict | None, tmp_path: Path):
    path, tensors, header = saved(tmp_path)
    own = json.loads(header["__metadata__"]["cache"])
    header["__metadata__"]["cache"] = json.dumps(own | changes) if changes else "no json"
    rewritten(path, header, tensors)
    with pytest.raises(CheckpointError, match="no saved cache of this version"):
        read_tokens(path, new_cache())
    del header["__metadata__"]["cache"]
    rewritten(path, header, tensors)
    with pytest.raises(CheckpointError, match="no saved cache of this version"):
        read_tokens(path, new_cache())


def test_tensors_that_are_not_those_of_the_header_are_refused(tmp_path: Path):
    path, tensors, header = saved(tmp_path)
    own = json.loads(header["__metadata__"]["cache"])
    cache = new_cache()
    for changes, words in (
        ({"num_tokens": 8}, r"k_scales .* is \(\(9, 2\), 'F16'\), not \(8, 2\) of F16"),
        ({"kv_format": "plain"}, "other tensors"),
        ({"kv_format": "int4"}, "k_scales"),
    ):
        header["__metadata__"]["cache"] = json.dumps(own | changes)
        rewritten(path, header, tensors)
        with pytest.raises(CheckpointError, match=words):
            read_tokens(path, cache)
        assert cache.used_tokens == 0


def test_a_file_of_no_tokens_says_so(tmp_path: Path):
    path = tmp_path / "words.safetensors"
    write_metadata(path, {"said": "yes"})
    assert read_metadata(path) == ({"said": "yes"}, False)
