"""Cached tokens -> a safetensors file, and back, bit for bit in every format.

Tokens are written in the order they are attended to, layer after layer and block after block, so
that the host never holds more than one block of one layer; the file appears whole or not at all.
Its tensors are `layers.I.k`, `layers.I.v` and, of a quantised cache, `layers.I.k_scales` and
`layers.I.v_scales`, of the shapes that `StoredKv` names; its metadata say what they are, beside
what the caller adds. Knows no sequence and no text.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Final, get_args

import torch
from safetensors import SafetensorError, safe_open

from llava_video.errors import CheckpointError
from llava_video.files import replacing
from llava_video.model.kv_cache import Extent, KvCache, KvSpan
from llava_video.model.tensor_files import DTYPES, write_header
from llava_video.ops.kv_format import StoredKv
from llava_video.values import KvFormat

CACHE_KEY: Final = "cache"
BLOCK_TOKENS: Final = 32_768

# Scales stand before all codes: an odd number of bytes before 16-bit numbers could not be mapped.
_PARTS: Final = (("k_scales", "v_scales"), ("k", "v"))
_AGAIN = "save the cache again: an interrupted copy leaves such a file."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """What a cache's tokens look like.

    Attributes:
        num_layers: decoder layers.
        num_kv_heads: key and value heads.
        head_dim: channels of one head.
        kv_format: how the tokens are stored.
        dtype: what plain ones are stored in; of quantised ones it says nothing.
        num_tokens: tokens.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    kv_format: KvFormat
    dtype: str
    num_tokens: int

    @property
    def shape_words(self) -> str:
        """Layers and heads, for a message."""
        return (
            f"{self.num_layers} layers of {self.num_kv_heads} kv heads of {self.head_dim} channels"
        )


def write_tokens(
    path: str | Path, cache: KvCache, spans: Sequence[KvSpan], metadata: Mapping[str, str]
) -> None:
    """Write the tokens of some spans, in their order, to one file.

    Args:
        path: the file; what is there is replaced when all is written.
        cache: where the spans are.
        spans: of one format, at least one token together.
        metadata: what else the file says; any key but "cache".

    Raises:
        CheckpointError: the file cannot be written.
        ValueError: there are no tokens, formats differ, or the metadata's key is taken.
    """
    spans = [span for span in spans if span.num_tokens]
    formats = {cache.format_of(span) for span in spans}
    if len(formats) != 1 or CACHE_KEY in metadata:
        raise ValueError(f"tokens of formats {sorted(formats)}, metadata {sorted(metadata)}.")
    num_tokens = sum(span.num_tokens for span in spans)
    sizes = _sizes(cache, formats.pop(), num_tokens)
    header = {"__metadata__": {CACHE_KEY: json.dumps(asdict(sizes)), **metadata}}
    with _writing(path) as file:
        write_header(file, header | _tensor_fields(cache, spans[0], num_tokens))
        for layer_idx, part in _tensors(cache, spans[0]):
            _write_tensor(file, cache, spans, layer_idx, part)


def write_metadata(path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a file of no tokens, for `read_metadata`; arguments and errors as `write_tokens`."""
    with _writing(path) as file:
        write_header(file, {"__metadata__": metadata})


def read_metadata(path: str | Path) -> tuple[dict[str, str], bool]:
    """Return what a file says beside its tokens, and whether it has any.

    Raises:
        CheckpointError: the file is damaged.
    """
    with _reading(Path(path)) as file:
        metadata = dict(file.metadata() or {})
        return metadata, bool(file.keys()) or CACHE_KEY in metadata


def read_tokens(path: str | Path, cache: KvCache) -> tuple[Extent, dict[str, str]]:
    """Read a file's tokens into places reserved for them.

    Args:
        path: a file of `write_tokens`.
        cache: of the same sizes, and for plain tokens of the same dtype.

    Returns:
        The extent, with one owner, its tokens in the file's order; and the caller's metadata.

    Raises:
        CapacityError: the cache has no room; nothing stays reserved.
        CheckpointError: the file is damaged, or of a model of other sizes.
    """
    path = Path(path)
    with _reading(path) as file:
        metadata = dict(file.metadata() or {})
        sizes = _read_sizes(path, metadata.pop(CACHE_KEY, ""))
        _check_fits(path, sizes, cache)
        extent = cache.reserve(sizes.num_tokens, sizes.kv_format)
        try:
            _read_layers(path, file, cache, extent.span)
        except BaseException:
            cache.release(extent)
            raise
    return extent, metadata


@contextlib.contextmanager
def _writing(path: str | Path) -> Iterator[BinaryIO]:
    try:
        with replacing(Path(path)) as unfinished, unfinished.open("wb") as file:
            yield file
    except OSError as cause:
        raise CheckpointError(
            f"{path} cannot be written: {cause}.", "name a folder that is there and has room."
        ) from cause


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as cause:
        found = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        raise CheckpointError(
            f"{path} is no saved cache, truncated or damaged ({found}): {cause}.", _AGAIN
        ) from cause


def _sizes(cache: KvCache, kv_format: KvFormat, num_tokens: int) -> _Sizes:
    return _Sizes(
        num_layers=cache.num_layers,
        num_kv_heads=cache.num_kv_heads,
        head_dim=cache.head_dim,
        kv_format=kv_format,
        dtype=str(cache.dtype).removeprefix("torch."),
        num_tokens=num_tokens,
    )


def _part(stored: StoredKv, part: str) -> torch.Tensor:
    tensor: torch.Tensor = getattr(stored, part)
    return tensor


def _tensors(cache: KvCache, span: KvSpan) -> Iterator[tuple[int, str]]:
    """Yield layer and part of every tensor, in the order of the file."""
    stored = cache.stored(0, span)
    for parts in _PARTS:
        held = [part for part in parts if getattr(stored, part) is not None]
        yield from ((layer_idx, part) for layer_idx in range(cache.num_layers) for part in held)


def _name(layer_idx: int, part: str) -> str:
    return f"layers.{layer_idx}.{part}"


def _tensor_fields(cache: KvCache, span: KvSpan, num_tokens: int) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    start = 0
    for layer_idx, part in _tensors(cache, span):
        tensor = _part(cache.stored(layer_idx, span), part)
        shape = [num_tokens, *tensor.shape[1:]]
        stop = start + num_tokens * tensor[:1].numel() * tensor.itemsize
        dtype = DTYPES[tensor.dtype]
        offsets = [start, stop]
        entries[_name(layer_idx, part)] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        start = stop
    return entries


def _write_tensor(
    file: BinaryIO, cache: KvCache, spans: Sequence[KvSpan], layer_idx: int, part: str
) -> None:
    for span in spans:
        tensor = _part(cache.stored(layer_idx, span), part)
        for block in torch.split(tensor.detach(), BLOCK_TOKENS):
            file.write(block.cpu().contiguous().view(torch.uint8).numpy().data)


def _read_layers(path: Path, file: Any, cache: KvCache, span: KvSpan) -> None:
    wanted = {_name(layer_idx, part) for layer_idx, part in _tensors(cache, span)}
    if wanted != set(file.keys()):
        raise CheckpointError(f"{path} holds other tensors than its header promises.", _AGAIN)
    for layer_idx, part in _tensors(cache, span):
        target = _part(cache.stored(layer_idx, span), part)
        tensor = file.get_slice(_name(layer_idx, part))
        found = (tuple(tensor.get_shape()), tensor.get_dtype())
        if found != (tuple(target.shape), DTYPES[target.dtype]):
            raise CheckpointError(
                f"{_name(layer_idx, part)} of {path} is {found}, not {tuple(target.shape)} "
                f"of {DTYPES[target.dtype]}.",
                _AGAIN,
            )
        for start in range(0, span.num_tokens, BLOCK_TOKENS):
            stop = min(start + BLOCK_TOKENS, span.num_tokens)
            target[start:stop].copy_(tensor[start:stop])


def _read_sizes(path: Path, text: str) -> _Sizes:
    try:
        values = json.loads(text)
        sizes = _Sizes(**values)
        types = {field.name: type(values[field.name]) for field in fields(_Sizes)}
        is_whole = {name for name, kind in types.items() if kind is int}
        if is_whole != {"num_layers", "num_kv_heads", "head_dim", "num_tokens"}:
            raise ValueError(f"types {types}")
        if sizes.kv_format not in get_args(KvFormat) or sizes.num_tokens < 1:
            raise ValueError(f"{sizes.num_tokens} tokens of format {sizes.kv_format!r}")
    except (TypeError, ValueError) as cause:
        raise CheckpointError(
            f"{path} is no saved cache of this version: {cause}.", "save the cache again."
        ) from cause
    return sizes


def _check_fits(path: Path, sizes: _Sizes, cache: KvCache) -> None:
    own = _sizes(cache, sizes.kv_format, sizes.num_tokens)
    if own.shape_words != sizes.shape_words:
        raise CheckpointError(
            f"{path} was saved from {sizes.shape_words}, this model has {own.shape_words}.",
            "load it into the model that saved it.",
        )
    if sizes.kv_format == "plain" and own.dtype != sizes.dtype:
        raise CheckpointError(
            f"{path} holds plain keys in {sizes.dtype}, this cache is of {own.dtype}.",
            f"load the model with dtype={sizes.dtype!r}.",
        )
