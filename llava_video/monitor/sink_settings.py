"""Where alerts go: one dataclass for a webhook, a broker, a file, a command or the terminal.

What belongs to another kind of sink is refused. Secrets are names of the environment. Opens
nothing.
"""

import re
import urllib.parse
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from llava_video.config import check, setting
from llava_video.errors import ConfigError
from llava_video.monitor.secret import NAME, names_in

SinkKind = Literal["webhook", "mqtt", "jsonl", "command", "terminal"]
Severity = Literal["info", "warning", "critical"]

SEVERITIES: Final = ("info", "warning", "critical")
_OF_ALL: Final = {"name", "kind", "least_severity", "first_wait_s", "most_wait_s", "timeout_s"}
_OWN: Final[dict[str, set[str]]] = {
    "webhook": {"address", "secret", "pictures"},
    "mqtt": {"address", "topic", "user", "secret", "pictures"},
    "jsonl": {"path"},
    "command": {"command", "pictures"},
    "terminal": set(),
}
_NEEDS: Final = {
    "webhook": ("address", "secret"),
    "mqtt": ("address", "topic"),
    "jsonl": ("path",),
    "command": ("command",),
    "terminal": (),
}
_SCHEMES: Final = {"webhook": ("http", "https"), "mqtt": ("mqtt", "mqtts")}
_USER: Final = re.compile(r"[^/?#]*//[^/?#]*@")
_WITHOUT_USER: Final = {
    "webhook": "its requests are signed with secret: ${NAME}; a token may stand in the path.",
    "mqtt": "user: … and secret: ${NAME}.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """One place that alerts are delivered to, in order, again until it takes them."""

    name: str = setting("", "What it is called in messages; its own among sinks.")
    kind: SinkKind = setting("terminal", "webhook, mqtt, jsonl, command or terminal.")
    address: str = setting(
        "", "Of a webhook or broker: http(s)://… or mqtt(s)://…; ${NAME} for what is secret."
    )
    secret: str = setting("", "${NAME}: what a webhook is signed with, or the broker's password.")
    user: str = setting("", "The broker's user, or ${NAME}.")
    topic: str = setting("", "The broker's topic.")
    path: str = setting("", "The file that lines are added to.")
    command: tuple[str, ...] = setting(
        (), "Program and arguments, run without a shell; the message comes on stdin."
    )
    pictures: bool = setting(
        False, "Whether messages carry their picture as base64, for who cannot read this disk."
    )
    least_severity: Severity = setting("info", "Alerts below this are not sent there.")
    timeout_s: float = setting(10.0, "How long one delivery may take.", unit="s", above=0)
    first_wait_s: float = setting(
        1.0, "Wait before a refused message's next try; twice as long each time.", unit="s", above=0
    )
    most_wait_s: float = setting(300.0, "Longest such wait.", unit="s", above=0)

    def __post_init__(self) -> None:
        check(self, is_finite=True)
        if not self.name.strip():
            raise ConfigError(f"a sink of kind {self.kind!r} has no name.", "give it one.")
        self._check_fields()
        self._check_address()
        if self.most_wait_s < self.first_wait_s:
            raise ConfigError(
                f"sink {self.name!r}: first_wait_s = {self.first_wait_s}, most_wait_s = "
                f"{self.most_wait_s}.",
                "the longest wait is not below the first.",
            )

    def _check_fields(self) -> None:
        allowed = _OF_ALL | _OWN[self.kind]
        given = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        for name in given:
            if name not in allowed:
                raise ConfigError(
                    f"sink {self.name!r} of kind {self.kind!r} takes no {name}.",
                    f"it takes {', '.join(sorted(allowed))}.",
                )
        for name in _NEEDS[self.kind]:
            if not getattr(self, name):
                raise ConfigError(
                    f"sink {self.name!r} of kind {self.kind!r} lacks {name}.", "give it a value."
                )
        if self.secret and not NAME.fullmatch(self.secret):
            raise ConfigError(
                f"the secret of sink {self.name!r} stands in the file.",
                "secret: ${NAME}, and export NAME.",
            )
        if self.kind == "mqtt" and self.secret and not self.user:
            raise ConfigError(f"sink {self.name!r} has a password and no user.", "user: …")
        if set(self.topic) & {"+", "#", "\0"}:
            raise ConfigError(
                f"the topic of sink {self.name!r} is {self.topic!r}.",
                "+ and # name many topics, for who reads; a message goes to one.",
            )
        if self.kind == "command" and not all(self.command):
            raise ConfigError(f"the command of sink {self.name!r} has an empty word.")

    def _check_address(self) -> None:
        schemes = _SCHEMES.get(self.kind)
        if schemes is None or NAME.fullmatch(self.address):
            return
        try:
            scheme = urllib.parse.urlsplit(NAME.sub("x", self.address)).scheme
        except ValueError as cause:  # an IPv6 host without its end
            raise ConfigError(f"the address of sink {self.name!r} is none.", "http://…") from cause
        if scheme not in schemes:
            raise ConfigError(
                f"the address of sink {self.name!r} does not begin with {schemes[0]}://.",
                f"allowed: {', '.join(f'{scheme}://' for scheme in schemes)}.",
            )
        self.refuse_user(self.address)

    def refuse_user(self, address: str) -> None:
        """Refuse an address with `user:password@`, without repeating it.

        urllib takes all of that for the host's name: nothing would ever be delivered, and the
        password would be sent to whoever resolves names.

        Args:
            address: this sink's, its names filled or not.

        Raises:
            ConfigError: there is a user.
        """
        if "@" in address if self.kind == "mqtt" else _USER.match(address):
            raise ConfigError(
                f"the address of sink {self.name!r} has a user.", _WITHOUT_USER[self.kind]
            )

    @property
    def environment_names(self) -> list[str]:
        """Names of the environment that it needs."""
        values: list[Any] = [self.address, self.secret, self.user]
        return [name for text in values for name in names_in(text)]

    def takes(self, severity: str) -> bool:
        """Say whether alerts of a severity are sent there."""
        return SEVERITIES.index(severity) >= SEVERITIES.index(self.least_severity)
