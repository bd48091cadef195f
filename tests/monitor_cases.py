"""What tests of a watch share: short rules, observations, and a local sink that may refuse."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from llava_video.monitor.message import Message
from llava_video.monitor.rules import Decision, Observation, RuleState, decide
from llava_video.monitor.settings import Rule, WatchSettings, rules_of

PERSON = {"name": "person", "question": "Is there a person?"}


def person(**changes: Any) -> Rule:
    """Return a rule of a yes-or-no question without cooldown, with changes."""
    return Rule(**{**PERSON, "cooldown_s": 0.0, **changes})


def said(
    at_s: float, value: Any = "yes", confidence: float | None = 0.9, **more: Any
) -> Observation:
    """Return an answered window of two seconds."""
    return Observation(start_s=at_s - 2, at_s=at_s, value=value, confidence=confidence, **more)


def run(
    rule: Rule, observations: Sequence[Observation], state: RuleState | None = None
) -> tuple[RuleState, list[Decision]]:
    """Take windows into account, one after another."""
    state, decisions = state or RuleState(), []
    for observation in observations:
        state, decision = decide(rule, "gate", state, observation)
        decisions.append(decision)
    return state, decisions


def whys(rule: Rule, observations: Sequence[Observation]) -> list[str]:
    """Return the reasons of each window."""
    return [str(decision.why) for decision in run(rule, observations)[1]]


def watch(*sinks: dict[str, Any], **more: Any) -> WatchSettings:
    """Return settings of one camera and one rule."""
    values = {
        "cameras": [{"name": "gate", "address": "gate.mp4"}],
        "rules": [{**PERSON, "cooldown_s": 0}],
        "sinks": list(sinks),
        **more,
    }
    return rules_of(values)


def message_of(
    number: int, kind: str = "alert", severity: str = "warning", **facts: Any
) -> Message:
    """Return a message of the alert of a number."""
    alert = f"{number:032x}"
    own_id = f"{alert}-{kind}"
    body = {
        "id": own_id, "alert_id": alert, "kind": kind, "at": "2026-01-01T00:00:00.000Z",
        "camera": "gate", "rule": "person", "answer": "yes", "confidence": 0.9, **facts,
    }  # fmt: skip
    return Message(id=own_id, alert_id=alert, kind=kind, severity=severity, body=json.dumps(body))


class Receiver:
    """A local HTTP sink that keeps what it took.

    Attributes:
        answers: status of each request in turn, the last one for good; "hang" answers never,
            "drip" one byte now and then.
        taken: (headers, body) of those answered with 2xx.
    """

    def __init__(self, answers: Sequence[Any] = (200,)) -> None:
        self.answers = list(answers)
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.num_asked = 0
        self.released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.num_asked += 1
                first = len(receiver.answers) > 1
                answer = receiver.answers.pop(0) if first else receiver.answers[0]
                if answer in ("hang", "drip"):
                    for _ in range(600):
                        if receiver.released.wait(0.05):
                            return
                        if answer == "drip":
                            try:
                                self.wfile.write(b"H")
                            except OSError:
                                return
                    return
                if 200 <= answer < 300:
                    receiver.taken.append((dict(self.headers), body))
                self.send_response(answer)
                if 300 <= answer < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}/hook"

    @property
    def ids(self) -> list[str]:
        """Ids of the messages taken, in order."""
        return [json.loads(body)["id"] for _, body in self.taken]


@contextmanager
def receiving(answers: Sequence[Any] = (200,)) -> Iterator[Receiver]:
    """Run a receiver while the block runs."""
    receiver = Receiver(answers)
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()
