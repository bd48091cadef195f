"""The exceptions of the library: one hierarchy, each with a sentence and a hint.

Every error also inherits the built-in a stranger would expect to catch (`ValueError`, `OSError`,
`ImportError`, `RuntimeError`). This file knows nothing of videos or models.
"""


class LlavaVideoError(Exception):
    """Report what was asked and what was found; `hint` says what to do next.

    Args:
        message: one sentence, what was asked and what was found.
        hint: what the user can do, or "" when nothing can be done.

    Attributes:
        names_fields: it speaks of fields of a file, which are no keywords of a call.
    """

    names_fields: bool = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}  hint: {self.hint}" if self.hint else self.message


class ConfigError(LlavaVideoError, ValueError):
    """A setting is wrong: the field, its value and the allowed range stand in the message."""


class BackendMissingError(LlavaVideoError, ImportError):
    """An optional package is absent or too old; the hint is the pip command."""


class SourceError(LlavaVideoError, OSError):
    """The bytes cannot be found, reached or opened."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        # OSError took the two arguments for an errno and its text.
        self.errno = None
        self.strerror = None


class AccessRefusedError(SourceError):
    """Whoever has the bytes wants another user name or password; trying again is of no use."""


class DecodeError(LlavaVideoError, RuntimeError):
    """The source opened, but these frames cannot be produced.

    Args:
        message: what was asked and found.
        hint: what to do.
        pts_s: seconds from the first frame where decoding failed; None when not at one place.
    """

    def __init__(self, message: str, hint: str = "", pts_s: float | None = None) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, pts_s)
        self.pts_s = pts_s


class BudgetError(LlavaVideoError, ValueError):
    """The request, or the model itself, does not fit even at its coarsest.

    Args:
        message: what was asked and found.
        hint: the nearest settings that fit.
        need_tokens: tokens the coarsest plan takes; 0 where weights do not fit.
        have_tokens: tokens available.
        need_bytes: bytes that weights and the least cache take; 0 where tokens do not fit.
        have_bytes: bytes available.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        need_tokens: int = 0,
        have_tokens: int = 0,
        need_bytes: int = 0,
        have_bytes: int = 0,
    ) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, need_tokens, have_tokens, need_bytes, have_bytes)
        self.need_tokens = need_tokens
        self.have_tokens = have_tokens
        self.need_bytes = need_bytes
        self.have_bytes = have_bytes


class ExampleError(LlavaVideoError, ValueError):
    """An example of training data cannot be learned from; others can.

    Args:
        message: what was found.
        hint: what to do.
        kind: one or two words to count such examples under: "missing file", "too long", ….
    """

    def __init__(self, message: str, hint: str = "", kind: str = "broken") -> None:
        super().__init__(message, hint)
        self.args = (message, hint, kind)
        self.kind = kind


class CheckpointError(LlavaVideoError, RuntimeError):
    """Weights, configuration and model disagree, or the checkpoint is not supported."""


class CapacityError(LlavaVideoError, RuntimeError):
    """There is no room now (memory, queue); the same request may succeed later."""


class ManifestError(ConfigError):
    """Inputs of an archive that cannot be worked as they are written.

    Args:
        message: how many and the first ones.
        hint: what to do.
        problems: a sentence each, with file and line; the first ones where there are many.
    """

    def __init__(self, message: str, hint: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, problems)
        self.problems = problems


class ChangedFileError(SourceError):
    """A file became another one while it was read."""


class LedgerError(LlavaVideoError, OSError):
    """An archive's ledger or a monitor's spool cannot be used; what it held before is untouched."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        # OSError took the two arguments for an errno and its text.
        self.errno = None
        self.strerror = None


class LedgerBusyError(LedgerError):
    """Another process works on this run folder."""


class ServerError(LlavaVideoError, ConnectionError):
    """A server cannot be reached, breaks off or answers nonsense; it may answer later."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        # OSError took the two arguments for an errno and its text.
        self.errno = None
        self.strerror = None


class ServerBusyError(ServerError):
    """A server has no room now: too many requests, or it is not ready yet."""


class ServerRefusedError(ServerError):
    """A server answers, and will not do what it is asked: the key, the model or the request."""


class ServerClosedError(ServerRefusedError):
    """A server does nothing at all for us: the key, the quota, or no such model."""


class SinkError(LlavaVideoError, RuntimeError):
    """A sink did not take a message, which is tried again."""
