"""A JSON schema → which tokens may come next, so that the answer is valid by construction.

The grammar work is llguidance's, on the tokenizer's own vocabulary; this file only hands masks to
the logits. JSON is written compactly (", " and ": ", no line breaks): free white space would let a
weak model pad for ever. Choices need no mask: they are scored whole (`choices.py`). Knows no model.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llava_video.backends import require
from llava_video.errors import ConfigError

_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class ConstraintCompiler:
    """Turns schemas into constraints over one vocabulary; safe to call from many threads.

    Args:
        tokenizer_json: returns the text of tokenizer.json; called once, when first needed.
        vocab_size: columns of the logits, at least the tokenizer's length.
        eos_ids: ids that end an answer; () for the tokenizer's own.
    """

    def __init__(
        self, tokenizer_json: Callable[[], str], vocab_size: int, eos_ids: Sequence[int]
    ) -> None:
        self._tokenizer_json = tokenizer_json
        self._vocab_size = vocab_size
        self._eos_ids = list(eos_ids)
        self._lock = threading.Lock()
        self._vocabulary: Any = None

    def compile(self, schema: Mapping[str, Any]) -> "SchemaConstraint":
        """Make the constraint of one answer.

        Raises:
            ConfigError: the schema is wrong or uses what the grammar cannot guarantee.
            BackendMissingError: llguidance is not installed.
        """
        llguidance = require("llguidance")
        try:
            text = json.dumps(dict(schema))
        except (TypeError, ValueError) as cause:
            raise ConfigError(
                f"response_format is no JSON: {cause}.", "plain JSON values."
            ) from cause
        grammar = llguidance.LLMatcher.grammar_from_json_schema(text, overrides=_COMPACT)
        matcher = llguidance.LLMatcher(self._tokens(), grammar, log_level=0)
        if matcher.is_error():
            raise ConfigError(
                f"response_format cannot be followed: {matcher.get_error()}.",
                "leave out the keyword it names, or ask for less.",
            )
        return SchemaConstraint(matcher, self._vocab_size)

    def _tokens(self) -> Any:
        """Return llguidance's view of the vocabulary; building it takes about a second."""
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = require("llguidance").LLTokenizer(
                    self._tokenizer_json(),
                    n_vocab=self._vocab_size,
                    eos_token=self._eos_ids or None,
                )
            return self._vocabulary


class SchemaConstraint:
    """Follows one answer token by token.

    Args:
        matcher: llguidance's matcher, in its first state.
        vocab_size: columns of the logits.
    """

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._ended = False

    @property
    def is_complete(self) -> bool:
        """Whether the answer is valid and nothing may follow."""
        return self._ended or bool(self._matcher.is_stopped() and self._matcher.is_accepting())

    def allowed(self, device: torch.device) -> Tensor:
        """Return which ids may come next, (vocab,) bool; the end only where the answer is valid."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.unpackbits(bits, bitorder="little", count=self._vocab_size)
        return torch.from_numpy(mask.view(np.bool_)).to(device)

    def push(self, token_id: int) -> None:
        """Take the next id.

        Raises:
            ConfigError: the grammar's limits were hit; the answer cannot be guaranteed further.
        """
        if not self._matcher.consume_token(token_id):
            raise ConfigError(
                f"the grammar of response_format gave up: {self._matcher.get_error()}.",
                "ask for a smaller schema.",
            )

    def end(self) -> None:
        """Say that an end token was chosen; `allowed` permits it only where the answer is valid."""
        self._ended = True
