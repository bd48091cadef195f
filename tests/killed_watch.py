"""Kills a process that raises alerts and delivers them, again and again, and looks what came.

A script, in a process of its own, since it forks: FOLDER SEED. Prints one JSON object. The windows
are certain, so the alerts of a watch that nobody killed are known; the window under way when it was
killed is seen again. The sink is a server in another process, which refuses every seventh request
and notes what it took before it says so.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from monitor_cases import person, said, watch

from llava_video.monitor.alerts import AlertDesk
from llava_video.monitor.delivery import Couriers
from llava_video.monitor.rules import Observation, RuleState, decide
from llava_video.monitor.settings import WatchSettings
from llava_video.monitor.spool import Spool

NUM_KILLS, NUM_WINDOWS = 50, 900
# A watch that is to be killed sees no more, so that however fast it is there is something left.
MOST_WINDOWS = NUM_WINDOWS // NUM_KILLS - 2
FRAME = np.zeros((48, 64, 3), np.uint8)
RULE = person()


def window(number: int) -> Observation:
    """Two windows with somebody, two without."""
    return said(1000.0 + number, "yes" if number // 2 % 2 == 0 else "no")


def unbroken() -> list[str]:
    """Return the ids of the alerts of a watch that nobody kills."""
    state, ids = RuleState(), []
    for number in range(NUM_WINDOWS):
        state, decision = decide(RULE, "gate", state, window(number))
        ids += [decision.alert_id] if decision.signal == "raised" else []
    return ids


def settings_of(folder: Path, port: int) -> WatchSettings:
    waits = {"first_wait_s": 0.005, "most_wait_s": 0.02}
    hook = {"name": "hook", "kind": "webhook", "address": f"http://127.0.0.1:{port}/"}
    log = {"name": "log", "kind": "jsonl", "path": str(folder / "log.jsonl")}
    return watch({**hook, **waits, "secret": "${K}", "pictures": True}, {**log, **waits})


def run(folder: Path, port: int, *, to_the_end: bool) -> None:
    """Watch until killed, or to the end and until all is delivered."""
    begun = folder / "begun"
    first = max(0, begun.stat().st_size - 1) if begun.exists() else 0
    settings = settings_of(folder, port)
    with Spool(folder / "spool") as spool, begun.open("ab", buffering=0) as log:
        couriers: list[Couriers] = []
        desk = AlertDesk(spool, settings, on_put=lambda: [one.wake() for one in couriers])
        for lost in spool.without_update():
            desk.update(lost.alert_id, problem="the watch was restarted")
        state = desk.state(RULE, "gate")
        with Couriers(spool, settings.sinks, {"K": "k"}, desk.evidence.folder) as running:
            couriers.append(running)
            last = NUM_WINDOWS if to_the_end else min(NUM_WINDOWS, first + MOST_WINDOWS)
            for number in range(first, last):
                if number >= begun.stat().st_size:
                    log.write(b".")
                state, decision = decide(RULE, "gate", state, window(number))
                message = desk.take(RULE, state, decision, FRAME)
                if message is not None:
                    desk.update(message.alert_id, description="Somebody.")
                if number % 50 == 0:
                    desk.tend()
            while not to_the_end or spool.num_waiting():
                time.sleep(0.01)


def serve(listening: socket.socket, taken: Path) -> None:
    """Take messages; every seventh request is refused."""
    num_asked = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal num_asked
            body = self.rfile.read(int(self.headers["Content-Length"]))
            num_asked += 1
            status = 503 if num_asked % 7 == 0 else 200
            if status == 200:
                with taken.open("a") as file:
                    file.write(json.loads(body)["id"] + "\n")
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket = listening
    server.serve_forever()


def wait(dice: random.Random, begun: Path) -> None:
    """Wait a moment: while it starts, or after some windows, however fast it is."""
    if dice.random() < 0.3:
        time.sleep(dice.uniform(0.0, 0.05))
        return
    most = dice.randrange(MOST_WINDOWS)
    size = begun.stat().st_size if begun.exists() else 0
    for _ in range(2000):
        if begun.exists() and begun.stat().st_size >= min(size + most, NUM_WINDOWS):
            break
        time.sleep(0.001)
    time.sleep(dice.uniform(0.0, 0.005))


def forked(work: Callable[..., None], *arguments: Any, **named: Any) -> int:
    child = os.fork()
    if child == 0:
        work(*arguments, **named)
        os._exit(0)
    return child


def in_order(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))


def main(folder: Path, seed: int) -> dict[str, object]:
    """Kill, restart, go to the end, and compare."""
    dice = random.Random(seed)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    taken = folder / "taken"
    server = forked(serve, listening, taken)
    killed, in_work = 0, 0
    try:
        for _ in range(NUM_KILLS):
            child = forked(run, folder, port, to_the_end=False)
            size = (folder / "begun").stat().st_size if (folder / "begun").exists() else 0
            wait(dice, folder / "begun")
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            killed += os.WIFSIGNALED(status)
            now = (folder / "begun").stat().st_size if (folder / "begun").exists() else 0
            in_work += size < now < NUM_WINDOWS
        _, status = os.waitpid(forked(run, folder, port, to_the_end=True), 0)
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
    with Spool(folder / "spool") as spool:
        put = [one.id for one in reversed(spool.messages(10**6))]
        waiting, evidence = spool.num_waiting(), len(spool.files())
    hook = taken.read_text().split()
    log = [json.loads(line)["id"] for line in (folder / "log.jsonl").read_text().splitlines()]
    alerts = [own_id.removesuffix("-alert") for own_id in put if own_id.endswith("-alert")]
    wanted = unbroken()
    return {
        "killed": killed,
        "killed in work": in_work,
        "ended": status == 0,
        "alerts": len(wanted),
        "alerts as unbroken": alerts == wanted,
        "updates": sorted(o.removesuffix("-update") for o in put if o.endswith("-update"))
        == sorted(wanted),
        "waiting": waiting,
        "evidence": evidence,
        "hook in order": in_order(hook) == put,
        "log in order": in_order(log) == put,
        "hook again": len(hook) - len(put),
        "log again": len(log) - len(put),
        "torch": "torch" in sys.modules,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
