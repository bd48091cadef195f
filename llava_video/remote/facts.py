"""What a server says of itself and of the model that it serves, in plain values.

What changes each time that a server starts (dates, random ids) is no part of it: these facts tell
one run of work from another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ServerKind = Literal["vllm", "sglang", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What answers in place of weights of this machine.

    Attributes:
        base_url: where; without credentials.
        model: the model's name there.
        kind: which software serves it.
        version: of that software; "" where it does not say.
        context_tokens: positions the server accepts; None where it does not say.
        says: what its listing says besides.
        frames: how frames are sent to it.
        planned_as: the checkpoint whose configuration plans, and its commit where it has one.
    """

    base_url: str
    model: str
    kind: ServerKind = "other"
    version: str = ""
    context_tokens: int | None = None
    says: Mapping[str, Any] = field(default_factory=dict)
    frames: Mapping[str, Any] = field(default_factory=dict)
    planned_as: str = ""

    def to_mapping(self) -> dict[str, Any]:
        """Return them in plain values."""
        return {
            "engine": "openai",
            "base_url": self.base_url,
            "model": self.model,
            "kind": self.kind,
            "version": self.version,
            "context_tokens": self.context_tokens,
            "says": dict(self.says),
            "frames": dict(self.frames),
            "planned_as": self.planned_as,
        }
