"""An entry of the inputs and the bytes of its file → a unit of work, and the key of the same work.

Knows no ledger, no model and no file.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from llava_video.errors import DecodeError, LlavaVideoError

# Goes into every key: a change of what a key is made of makes all of them new.
_KEY_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry of the inputs.

    Attributes:
        number: its place among the inputs, from 0.
        address: path or URL of the video.
        prompts: what is asked of it; () for the task's own prompts.
        start_s: first moment, inclusive, s; None for the video's first.
        end_s: end of the span, exclusive, s; None for the video's end.
        name: for people; "" where the manifest gives none.
    """

    number: int
    address: str
    prompts: tuple[str, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    name: str = ""

    def to_json(self) -> str:
        """Return everything but the number as one line of JSON; what is not given is left out."""
        fields: dict[str, Any] = {
            "address": self.address,
            "prompts": self.prompts,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "name": self.name,
        }
        given = {name: value for name, value in fields.items() if value not in (None, (), "")}
        return json.dumps(given)

    @classmethod
    def from_json(cls, number: int, text: str) -> "Item":
        """Return the item that `to_json` wrote."""
        fields = json.loads(text)
        fields["prompts"] = tuple(fields.get("prompts", ()))
        return cls(number=number, **fields)


# Runs that ended in the midst of a unit: one may be anybody's kill, several are perhaps its own.
SUSPICIOUS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One piece of work: the same bytes, span, prompts, task and model are the same unit.

    Attributes:
        key: sha256 as hex, see `unit_key`.
        number: the first place among the inputs that asks for it.
        item: the entry there.
        content_hash: sha256 of the file's bytes as hex.
        attempts: how often it was tried and failed or killed its worker.
        crashes: how often it killed its worker.
        interruptions: how often the whole run ended in the midst of it, which is nobody's fault
            unless it happens again and again.
    """

    key: str
    number: int
    item: Item
    content_hash: str
    attempts: int = 0
    crashes: int = 0
    interruptions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitError:
    """Why a unit has no result.

    Attributes:
        kind: class of the error; what `retry` is told.
        message: its sentence.
        hint: what to do, or "".
        position_s: where in the video, s; None where it is not about one place.
    """

    kind: str
    message: str
    hint: str = ""
    position_s: float | None = None

    @classmethod
    def of(cls, error: BaseException) -> "UnitError":
        """Return what an exception says."""
        kind = type(error).__name__
        position_s = error.pts_s if isinstance(error, DecodeError) else None
        if isinstance(error, LlavaVideoError):
            return cls(kind=kind, message=error.message, hint=error.hint, position_s=position_s)
        return cls(kind=kind, message=str(error) or repr(error))


def unit_key(
    content_hash: str,
    item: Item,
    task_digest: str,
    model_revision: str,
    *,
    prompts: tuple[str, ...] = (),
) -> str:
    """Return the key of a unit: what decides its result, and neither its path nor its place.

    Args:
        content_hash: of the file's bytes.
        item: its span and prompts count, its address, name and number do not.
        task_digest: of the task and everything that plans and answers by, without its prompts:
            another prompt of the task is none of an item's business that has its own.
        model_revision: of the weights.
        prompts: the task's, for an item that has none.
    """
    # 5 and 5.0 are one moment.
    start_s, end_s = (None if at is None else float(at) for at in (item.start_s, item.end_s))
    asked = item.prompts or prompts
    facts = [_KEY_VERSION, content_hash, start_s, end_s, asked, task_digest, model_revision]
    text = json.dumps(facts)
    return hashlib.sha256(text.encode()).hexdigest()
