"""Prompt text ↔ token ids, over the checkpoint's tokenizer.model or tokenizer.json.

A prompt is split at every literal `<image>`; the pieces between are tokenised one by one, so that
no merge crosses a mark and the tokenizer's own `<image>` id is never produced. What the tokenizer
puts in front of every text (`<s>` of LLaMA; nothing of Qwen) stands once, in front of the whole.
Special tokens written in the text become special tokens, wherever the text comes from: so does the
original code, and the template relies on it. `special_tokens_in` names them for callers that pass
on untrusted text. Imports neither torch nor transformers and knows no template.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tokenizers import Encoding
from tokenizers import Tokenizer as BaseTokenizer

from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.json_fields import read_json_object
from llava_video.model.sentence_pieces import BLANK, convert_pieces

IMAGE_MARK: Final = "<image>"
MARK_ID: Final = -200

# A piece of a prompt that is no text: the place of one visual.
Mark = type(None)

# Placeholders that conversions of a checkpoint add to its vocabulary. Their embedding rows are
# random, so as ids they would be noise where the original checkpoint reads plain text.
_PLACEHOLDERS = frozenset({"<image>", "<video>"})
_REPLACEMENT = "\ufffd"
# Of a character of four bytes, three may be there: as many U+FFFD may still become one character.
_MOST_UNSURE = 3
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class Tokenizer:
    """The tokenizer of one checkpoint folder; safe to use from several threads.

    The original code reads LLaMA's by tokenizer.model, so that file is read where both are there;
    `tokenizer_class` and the like say nothing here.

    Args:
        folder: holds tokenizer.model (SentencePiece, as LLaMA's) or tokenizer.json, and mostly
            tokenizer_config.json.

    Attributes:
        front_ids: ids the tokenizer puts in front of every text.

    Raises:
        CheckpointError: when neither is there, or not readable.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self._folder = folder
        path = folder / "tokenizer_config.json"
        settings = read_json_object(path) if path.is_file() else {}
        self._json, self._doubled_before = _read(folder, settings)
        try:
            self._base = BaseTokenizer.from_str(self._json)
        except Exception as cause:  # tokenizers raises nothing narrower
            raise CheckpointError(
                f"{folder / 'tokenizer.json'} is no tokenizer: {cause}.",
                "download the checkpoint again.",
            ) from cause
        # A file may ask for padding or truncation; a prompt is never cut or padded.
        self._base.no_padding()
        self._base.no_truncation()
        added = self._base.get_added_tokens_decoder().values()
        self._special = tuple(token.content for token in added if token.special)
        self._has_byte_pieces = bool(getattr(self._base.model, "byte_fallback", False))
        self.front_ids = self._front_ids(settings)

    def __repr__(self) -> str:
        return f"Tokenizer({self.num_ids} ids)"

    @property
    def num_ids(self) -> int:
        """One more than its largest id; ids may be left out, and the model may have more rows."""
        return max(self._base.get_vocab().values(), default=-1) + 1

    def check_rows(self, num_rows: int) -> None:
        """See that every id has a row of the embedding.

        Args:
            num_rows: rows there are.

        Raises:
            CheckpointError: there are too few.
        """
        if self.num_ids > num_rows:
            raise CheckpointError(
                f"the tokenizer in {self._folder} has ids up to {self.num_ids - 1}, the embedding "
                f"has {num_rows} rows.",
                "use the tokenizer the checkpoint was trained with; one that was extended needs "
                "the rows too.",
            )

    def to_json(self) -> str:
        """Return the text of a tokenizer.json, without the placeholders of conversions."""
        return self._json

    def encode(self, text: str) -> list[int]:
        """Turn text without marks into ids; nothing is added in front or behind.

        Raises:
            ConfigError: the text is no Unicode (half a surrogate pair, as from undecodable bytes).
        """
        return list(self._encoding(text).ids)

    def encode_spans(self, text: str) -> list[tuple[int, int, int]]:
        """Turn text without marks into (id, start, stop): the characters every id stands for.

        Bytes of one character share it. Raises as `encode`.
        """
        found = self._encoding(text)
        shift = len(self._lead(text))
        return [
            (token_id, max(0, start - shift), max(0, stop - shift))
            for token_id, (start, stop) in zip(found.ids, found.offsets, strict=True)
        ]

    def encode_prompt(self, prompt: str) -> list["list[int] | Mark"]:
        """Turn a prompt into its pieces: a list of ids per text, None per `<image>` mark.

        `front_ids` begin the first piece, as a piece of their own where the prompt begins with a
        mark. Text pieces that come to no id are left out.
        """
        pieces: list[list[int] | Mark] = []
        front = list(self.front_ids)
        for idx, text in enumerate(prompt.split(IMAGE_MARK)):
            if idx:
                pieces.append(None)
            ids = front + self.encode(text)
            front = []
            if ids:
                pieces.append(ids)
        return pieces

    def encode_ids(self, prompt: str) -> list[int]:
        """Turn a prompt into one list of ids with -200 at every `<image>`, as the reference."""
        ids: list[int] = []
        for piece in self.encode_prompt(prompt):
            ids.extend([MARK_ID] if piece is None else piece)
        return ids

    def num_text_tokens(self, prompt: str) -> int:
        """Count the ids of a prompt, `front_ids` counted, marks not."""
        return sum(len(piece) for piece in self.encode_prompt(prompt) if piece is not None)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into text; special tokens and ids beyond the vocabulary give nothing.

        Of a vocabulary that writes rare characters as bytes, each byte of no character is one
        U+FFFD and takes no others with it, as SentencePiece has it.
        """
        if not self._has_byte_pieces:
            return str(self._base.decode(list(ids), skip_special_tokens=True))
        pieces = self._bytes_of_ids
        text = b"".join(pieces.get(idx, b"") for idx in ids).decode(errors="surrogateescape")
        return re.sub("[\udc80-\udcff]", _REPLACEMENT, text).removeprefix(" ")

    def token_id(self, token: str) -> int | None:
        """Return the id of one token as spelled in the vocabulary; None when there is none."""
        found = self._base.token_to_id(token)
        return None if found is None else int(found)

    def special_id(self, token: str) -> int | None:
        """Return the id of a special token: one that is always read and written whole, or None."""
        return self.token_id(token) if token in self._special else None

    def special_tokens_in(self, text: str) -> tuple[str, ...]:
        """Return the special tokens that stand literally in a text and would be read as such."""
        return tuple(token for token in self._special if token in text)

    @cached_property
    def _bytes_of_ids(self) -> dict[int, bytes]:
        """What every id writes, of a vocabulary with byte pieces."""
        added = self._base.get_added_tokens_decoder()
        pieces: dict[int, bytes] = {}
        for piece, idx in self._base.get_vocab().items():
            byte = _BYTE_PIECE.fullmatch(piece)
            text = piece if idx in added else piece.replace(BLANK, " ")
            pieces[idx] = bytes([int(byte[1], 16)]) if byte else text.encode()
        special = (idx for idx, token in added.items() if token.special)
        return pieces | dict.fromkeys(special, b"")

    def _encoding(self, text: str) -> Encoding:
        try:
            text.encode()
        except UnicodeEncodeError as cause:
            raise ConfigError(
                f"the text {text[:40]!r} is no valid Unicode.", "retype it."
            ) from cause
        return self._base.encode(self._lead(text) + text, add_special_tokens=False)

    def _lead(self, text: str) -> str:
        return BLANK if text.startswith(self._doubled_before) else ""

    def _front_ids(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        """Return what stands before every text: `add_bos_token` rules where it says something."""
        asked, token = settings.get("add_bos_token"), settings.get("bos_token")
        begin = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(asked, bool) and isinstance(begin, str):
            begin_id = self.token_id(begin)
            return (begin_id,) if asked and begin_id is not None else ()
        found = self._base.encode("a")
        added = zip(found.ids, found.special_tokens_mask, strict=True)
        return tuple(token_id for token_id, _ in itertools.takewhile(lambda one: one[1], added))


class TextStream:
    """Ids one by one → text piece by piece, never half a character.

    The pieces joined are what `Tokenizer.decode` gives for all ids: a character whose bytes are
    spread over several tokens comes with the last of them.

    Args:
        tokenizer: turns ids into text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []  # since the last whole character, after `_num_old` sent already
        self._num_old = 0
        self._sent = 0

    def push(self, token_id: int) -> str:
        """Take the next id; return the text that is now certain, perhaps "".

        What may still change is held back: an unfinished character decodes to U+FFFD, one for each
        of its bytes in some vocabularies.
        """
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids)
        unsure = len(text) - len(text.rstrip(_REPLACEMENT))
        piece = text[self._sent : len(text) - min(unsure, _MOST_UNSURE)]
        if unsure:
            self._sent += len(piece)
        elif piece:
            # Some decoders strip a leading space, so the last sent token stays in the window.
            del self._ids[: self._num_old]
            self._num_old = len(self._ids)
            self._sent = len(self._tokenizer.decode(self._ids))
        return piece

    def finish(self) -> str:
        """Return what was held back, after the last id."""
        piece = self._tokenizer.decode(self._ids)[self._sent :]
        self._sent += len(piece)
        return piece


def _read(folder: Path, settings: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the text of a tokenizer.json, and what `Converted.doubled_before` says."""
    pieces, path = folder / "tokenizer.model", folder / "tokenizer.json"
    if pieces.is_file():
        try:
            found = convert_pieces(folder, settings, without=_PLACEHOLDERS)
        except CheckpointError:  # Llama 3 calls a file of another kind the same
            if not path.is_file():
                raise
        else:
            return json.dumps(found.values, ensure_ascii=False), found.doubled_before
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no tokenizer: neither tokenizer.json nor tokenizer.model is there.",
            "copy the one of the checkpoint into the folder, and tokenizer_config.json; "
            "vocab.json and merges.txt alone are not read.",
        )
    return _read_tokenizer_json(path), ()


def _read_tokenizer_json(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise CheckpointError(f"cannot read {path}: {cause}.", "download it again.") from cause
    if not any(f'"{placeholder}"' in text for placeholder in _PLACEHOLDERS):
        return text
    values: dict[str, Any] = read_json_object(path)
    try:
        kept = [one for one in values["added_tokens"] if one["content"] not in _PLACEHOLDERS]
        # Those behind a placeholder keep their ids by standing in the vocabulary itself.
        vocab = values["model"]["vocab"] | {one["content"]: one["id"] for one in kept}
        model = {**values["model"], "vocab": vocab}
    except (KeyError, TypeError) as cause:
        raise CheckpointError(
            f"{path} is no tokenizer of the kinds of the family ({cause!r}).",
            "download the checkpoint again.",
        ) from cause
    return json.dumps({**values, "added_tokens": kept, "model": model}, ensure_ascii=False)
