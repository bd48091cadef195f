"""A folder's tokenizer.model → the values of a tokenizer.json that gives the same ids.

LLaMA, Vicuna, Mistral and Yi write their vocabulary as a SentencePiece model: a protobuf message
with one piece per id, whose score says how early it is merged. The original checkpoints ship only
that, and their code reads it by the tokenizer that `transformers` calls slow. What that one does,
and so the values written here:

* special tokens are found first; what stands between them is text of its own;
* `legacy: false`: one blank goes in front of the whole text, unless a special token begins it, and
  it goes there even where the text begins with a blank (`doubled_before`: what `tokenizers` has no
  rule for);
* `legacy: true`, as before that switch existed: one blank in front of each text between specials.

Reads the message itself: neither sentencepiece nor protobuf nor transformers is needed.
"""

import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from llava_video.errors import CheckpointError
from llava_video.model.json_fields import read_json_object

BLANK: Final = "\u2581"  # how a vocabulary writes " "

_BPE = 2
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_HINT = (
    "download it again, or put a tokenizer.json of the same tokens beside it, which is read then."
)


class _Kind(IntEnum):
    """What a piece is, as the message numbers it."""

    NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


@dataclass(frozen=True, slots=True)
class Pieces:
    """A SentencePiece model of the BPE kind.

    Attributes:
        texts: the piece of every id, blanks written as U+2581.
        scores: of every id; a higher one is merged earlier.
        kinds: of every id.
        role_ids: ids of "unk", "bos" and "eos", for those it has.
        has_byte_fallback: whether characters without a piece are written as their bytes.
        adds_blank: whether a text gets a blank in front.
    """

    texts: tuple[str, ...]
    scores: tuple[float, ...]
    kinds: tuple[int, ...]
    role_ids: Mapping[str, int]
    has_byte_fallback: bool
    adds_blank: bool


@dataclass(frozen=True, slots=True)
class Converted:
    """What a tokenizer.model comes to.

    Attributes:
        values: the object of a tokenizer.json.
        doubled_before: a text that begins with one of these needs a U+2581 of its own in front.
    """

    values: dict[str, Any]
    doubled_before: tuple[str, ...]


def convert_pieces(
    folder: Path, settings: Mapping[str, Any], *, without: Collection[str] = ()
) -> Converted:
    """Convert a folder's tokenizer.model, with the tokens that its other files add.

    Args:
        folder: holds tokenizer.model; added_tokens.json and special_tokens_map.json count.
        settings: its tokenizer_config.json: `legacy` (true where it is not said, as the original
            code takes it), `add_bos_token`, `added_tokens_decoder`, and special tokens by role.
        without: added tokens to leave out.

    Raises:
        CheckpointError: it is damaged, or no SentencePiece model of the kind LLaMA has.
    """
    pieces = read_pieces(folder / "tokenizer.model")
    try:
        roles, others = _special_tokens(folder, settings, pieces)
        special = {*roles.values(), *others}
        everything = _added_tokens(folder, settings, pieces, special)
    except (AttributeError, KeyError, TypeError, ValueError) as cause:
        raise CheckpointError(
            f"the added tokens of {folder} are not listed as those of a tokenizer are ({cause!r}).",
            "copy tokenizer_config.json, special_tokens_map.json and added_tokens.json again.",
        ) from cause
    added = [token for token in everything if token["content"] not in without]
    is_legacy = settings.get("legacy") is not False
    ids = {text: idx for idx, text in enumerate(pieces.texts)}
    # Added tokens stand in the vocabulary too: there they keep the ids their files give them.
    ids |= {token["content"]: token["id"] for token in added}
    values: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": added,
        **(_legacy_rule(pieces.adds_blank) if is_legacy else _RULE),
        "decoder": _DECODER,
        "model": {
            "type": "BPE",
            "unk_token": _token_of(pieces, "unk"),
            "fuse_unk": True,
            "byte_fallback": pieces.has_byte_fallback,
            "vocab": ids,
            "merges": list(_merges(pieces)),
        },
    }
    begin = roles.get("bos")
    if settings.get("add_bos_token", True) and begin is not None:
        values["post_processor"] = _front(begin, ids[begin])
    plain = tuple(token["content"] for token in added if token["content"] not in special)
    return Converted(values, () if is_legacy else (" ", BLANK, *plain))


def read_pieces(path: Path) -> Pieces:
    """Read a SentencePiece model.

    Raises:
        CheckpointError: it is damaged, or of another kind than LLaMA's.
    """
    try:
        return _pieces(path.read_bytes())
    except OSError as cause:
        raise CheckpointError(f"cannot read {path}: {cause}.", "download it again.") from cause
    except (ValueError, struct.error) as cause:
        raise CheckpointError(f"{path} is not read: {cause}.", _HINT) from cause


def _pieces(message: bytes) -> Pieces:
    """Read `ModelProto`: 1 pieces, 2 how it was trained, 3 how text is normalised."""
    texts, scores, kinds = [], [], []
    trained: dict[int, Any] = {}
    normalised: dict[int, Any] = {}
    for number, value in _fields(message):
        if number == 1:
            piece = dict(_fields(_bytes(value)))  # 1 text, 2 score, 3 kind
            texts.append(_bytes(piece.get(1, b"")).decode())
            scores.append(struct.unpack("<f", _bytes(piece.get(2, bytes(4))))[0])
            kinds.append(piece.get(3, int(_Kind.NORMAL)))
        elif number == 2:
            trained |= dict(_fields(_bytes(value)))
        elif number == 3:
            normalised |= dict(_fields(_bytes(value)))
    if not texts or len(set(texts)) < len(texts):
        raise ValueError("it is no SentencePiece model")
    if trained.get(3, 1) != _BPE:
        raise ValueError("it is a SentencePiece model of another kind than BPE")
    if normalised.get(2) or normalised.get(4, 1) or trained.get(24):
        raise ValueError("its text is normalised, which that of LLaMA is not")
    roles = {"unk": trained.get(40, 0), "bos": trained.get(41, 1), "eos": trained.get(42, 2)}
    if roles["unk"] >= len(texts):
        raise ValueError("it has no piece for what is unknown")
    return Pieces(
        texts=tuple(texts),
        scores=tuple(scores),
        kinds=tuple(kinds),
        role_ids={role: idx for role, idx in roles.items() if idx < len(texts)},
        has_byte_fallback=bool(trained.get(35, 0)),
        adds_blank=bool(normalised.get(3, 1)),
    )


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value) of a protobuf message: a whole number, or the value's bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value: int | bytes
            value, at = _varint(message, at)
        elif kind in (1, 2, 5):
            length, at = _varint(message, at) if kind == 2 else (8 if kind == 1 else 4, at)
            value, at = message[at : at + length], at + length
        else:
            raise ValueError("it is no protobuf message")
        if at > len(message):
            raise ValueError("it is cut off")
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, least first; return it and where it ends."""
    number = 0
    for idx in range(at, min(at + 10, len(message))):
        number |= (message[idx] & 0x7F) << (7 * (idx - at))
        if message[idx] < 0x80:
            return number, idx + 1
    raise ValueError("it is cut off, or no protobuf message")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("it is no SentencePiece model")
    return value


def _merges(pieces: Pieces) -> Iterator[list[str]]:
    """Yield the pairs that are joined, in the order of the scores of what they give."""
    is_normal = [kind == _Kind.NORMAL for kind in pieces.kinds]
    known = {text for text, normal in zip(pieces.texts, is_normal, strict=True) if normal}
    order = sorted(range(len(pieces.texts)), key=lambda idx: -pieces.scores[idx])
    for text in (pieces.texts[idx] for idx in order if is_normal[idx]):
        for cut in range(1, len(text)):
            if text[:cut] in known and text[cut:] in known:
                yield [text[:cut], text[cut:]]


def _special_tokens(
    folder: Path, settings: Mapping[str, Any], pieces: Pieces
) -> tuple[dict[str, str], list[str]]:
    """Return the special tokens with a role, and those without."""
    stored = {**settings, **_object(folder / "special_tokens_map.json")}
    roles = {role: token for role in _ROLES if (token := _content(stored.get(f"{role}_token")))}
    for role in pieces.role_ids:
        if f"{role}_token" not in stored:
            roles[role] = _token_of(pieces, role)
    more = stored.get("additional_special_tokens") or []
    return roles, [token for one in more if (token := _content(one))]


def _added_tokens(
    folder: Path, settings: Mapping[str, Any], pieces: Pieces, special: set[str]
) -> list[dict[str, Any]]:
    """Return the tokens that are found before any merge, by id."""
    ids = {text: idx for idx, text in enumerate(pieces.texts)}
    facts: dict[int, Mapping[str, Any]] = {
        idx: {"content": text}
        for idx, text in enumerate(pieces.texts)
        if pieces.kinds[idx] == _Kind.USER_DEFINED
    }
    for content, idx in _object(folder / "added_tokens.json").items():
        facts[idx] = {"content": content}
    for idx, fact in (settings.get("added_tokens_decoder") or {}).items():
        facts[int(idx)] = fact
    known = {fact["content"] for fact in facts.values()}
    for content in sorted(special - known):
        facts[ids.get(content, max([len(ids) - 1, *facts]) + 1)] = {"content": content}
    return [
        {
            "id": idx,
            "content": facts[idx]["content"],
            "single_word": bool(facts[idx].get("single_word")),
            "lstrip": bool(facts[idx].get("lstrip")),
            "rstrip": bool(facts[idx].get("rstrip")),
            "normalized": False,
            "special": bool(facts[idx].get("special")) or facts[idx]["content"] in special,
        }
        for idx in sorted(facts)
    ]


def _content(token: object) -> str | None:
    """Return a token's text, from "<s>" or {"content": "<s>", …}."""
    found = token.get("content") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) and found else None


def _token_of(pieces: Pieces, role: str) -> str:
    return pieces.texts[pieces.role_ids[role]]


def _object(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}


_AS_BLANK = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
_RULE: Final[Mapping[str, Any]] = {
    "normalizer": None,
    "pre_tokenizer": {
        "type": "Metaspace",
        "replacement": BLANK,
        "prepend_scheme": "first",
        "split": False,
    },
}
_DECODER: Final[Mapping[str, Any]] = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": BLANK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


def _legacy_rule(adds_blank: bool) -> dict[str, Any]:
    blank = [{"type": "Prepend", "prepend": BLANK}] if adds_blank else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*blank, _AS_BLANK]},
        "pre_tokenizer": None,
    }


def _front(begin: str, begin_id: int) -> dict[str, Any]:
    """Return the rule that puts the first token in front of a text."""
    first = [{"SpecialToken": {"id": begin, "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": [*first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            *first,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": begin, "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {begin: {"id": begin, "ids": [begin_id], "tokens": [begin]}},
    }
