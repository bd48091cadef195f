"""Prompt text ↔ token ids, over the checkpoint's tokenizer.json.

A prompt is split at every literal `<image>`; the pieces between are tokenised one by one, so that
no merge crosses a mark and the tokenizer's own `<image>` id is never produced. Special tokens
written in the text become special tokens, wherever the text comes from: so does the original code,
and the template relies on it. `special_tokens_in` names them for callers that pass on untrusted
text. Imports neither torch nor transformers and knows no template.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer as BaseTokenizer

from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.json_fields import read_json_object

IMAGE_MARK: Final = "<image>"
MARK_ID: Final = -200

# A piece of a prompt that is no text: the place of one visual.
Mark = type(None)

# Placeholders that conversions of a checkpoint add to its vocabulary. Their embedding rows are
# random, so as ids they would be noise where the original checkpoint reads plain text.
_PLACEHOLDERS = frozenset({"<image>", "<video>"})
_REPLACEMENT = "\ufffd"


class Tokenizer:
    """The tokenizer of one checkpoint folder; safe to use from several threads.

    Args:
        folder: holds tokenizer.json.

    Raises:
        CheckpointError: when tokenizer.json is missing or not readable.
    """

    def __init__(self, folder: str | Path) -> None:
        self._json = _read_tokenizer_json(Path(folder) / "tokenizer.json")
        try:
            self._base = BaseTokenizer.from_str(self._json)
        except Exception as cause:  # tokenizers raises nothing narrower
            raise CheckpointError(
                f"{Path(folder) / 'tokenizer.json'} is no tokenizer: {cause}.",
                "download the checkpoint again.",
            ) from cause
        # A file may ask for padding or truncation; a prompt is never cut or padded.
        self._base.no_padding()
        self._base.no_truncation()
        added = self._base.get_added_tokens_decoder().values()
        self._special = tuple(token.content for token in added if token.special)

    def __repr__(self) -> str:
        return f"Tokenizer({self.num_ids} ids)"

    @property
    def num_ids(self) -> int:
        """Ids the tokenizer knows; the model may have more rows."""
        return int(self._base.get_vocab_size())

    def to_json(self) -> str:
        """Return the text of tokenizer.json, without the placeholders of conversions."""
        return self._json

    def encode(self, text: str) -> list[int]:
        """Turn text without marks into ids; nothing is added in front or behind.

        Raises:
            ConfigError: the text is no Unicode (half a surrogate pair, as from undecodable bytes).
        """
        try:
            text.encode()
        except UnicodeEncodeError as cause:
            raise ConfigError(
                f"the text {text[:40]!r} is no valid Unicode.", "retype it."
            ) from cause
        return list(self._base.encode(text, add_special_tokens=False).ids)

    def encode_prompt(self, prompt: str) -> list["list[int] | Mark"]:
        """Turn a prompt into its pieces: a list of ids per text, None per `<image>` mark.

        Text pieces that come to no id are left out.
        """
        pieces: list[list[int] | Mark] = []
        for idx, text in enumerate(prompt.split(IMAGE_MARK)):
            if idx:
                pieces.append(None)
            ids = self.encode(text)
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
        """Count the ids of a prompt, marks not counted."""
        return sum(len(piece) for piece in self.encode_prompt(prompt) if piece is not None)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into text; special tokens and ids beyond the vocabulary give nothing."""
        return str(self._base.decode(list(ids), skip_special_tokens=True))

    def token_id(self, token: str) -> int | None:
        """Return the id of one token as spelled in the vocabulary; None when there is none."""
        found = self._base.token_to_id(token)
        return None if found is None else int(found)

    def special_tokens_in(self, text: str) -> tuple[str, ...]:
        """Return the special tokens that stand literally in a text and would be read as such."""
        return tuple(token for token in self._special if token in text)


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

        The last character is held back while it may still change: an unfinished one decodes to
        U+FFFD.
        """
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids)
        if text.endswith(_REPLACEMENT):
            piece = text[self._sent : -1]
            self._sent += len(piece)
            return piece
        piece = text[self._sent :]
        if piece:
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


def _read_tokenizer_json(path: Path) -> str:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing.",
            "copy tokenizer.json of the checkpoint into the folder; vocab.json and merges.txt "
            "alone are not read.",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise CheckpointError(f"cannot read {path}: {cause}.", "download it again.") from cause
    if not any(f'"{placeholder}"' in text for placeholder in _PLACEHOLDERS):
        return text
    values: dict[str, Any] = read_json_object(path)
    added = values.get("added_tokens") or []
    values["added_tokens"] = [one for one in added if one.get("content") not in _PLACEHOLDERS]
    return json.dumps(values, ensure_ascii=False)
