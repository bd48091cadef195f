"""Kills a ledger's writer with SIGKILL at random moments, again and again, and looks each time.

A script, in a process of its own, since it forks: FOLDER SEED. Prints one JSON object: what was
killed, in the midst of what, and every fault that was found. Each writer notes what it begins to
work in a file of its own, so that work done twice cannot hide.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from archive_units import open_ledger, row_of, unit_of

from llava_video.archive.ledger_view import LedgerView
from llava_video.archive.unit import Unit, UnitError
from llava_video.errors import LedgerError

NUM_UNITS, NUM_KILLS = 3000, 30
UNITS = [unit_of(number) for number in range(NUM_UNITS)]
COPIES = [unit_of(NUM_UNITS + at, f"c{10 * at}") for at in range(NUM_UNITS // 10)]
SHARD_UNITS = 100
ERROR = UnitError(kind="DecodeError", message="broken.")
ENDED = {"done", "failed", "quarantined"}


def end_of(unit: Unit) -> str:
    """Every seventh is broken; some answer at the second attempt; some kill their workers."""
    return {3: "failed", 5: "quarantined", 6: "second"}.get(unit.number % 13, "done")


def write(folder: Path, log: Path) -> None:
    """Work until all is done; a copy of every tenth file lies at the end."""
    with open_ledger(folder, shard_units=SHARD_UNITS) as ledger, log.open("a") as begun:
        ledger.add([*UNITS, *COPIES])
        ledger.close_inputs(len(UNITS) + len(COPIES))
        worker = f"w{os.getpid()}"
        while claimed := ledger.claim(5, worker):
            for unit in claimed:
                begun.write(f"{unit.key}\n")
                begun.flush()
                how = end_of(unit)
                if how == "failed" or (how == "second" and unit.attempts == 0):
                    ledger.fail(unit.key, ERROR, final=how == "failed")
                elif how != "quarantined":
                    ledger.finish(unit.key, row_of(unit) | {"attempts": unit.attempts})
            ledger.release(worker, crashed=True)
            for shard in ledger.sealable():
                ledger.seal(shard)


def look(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return the row of every unit that has ended, and what is wrong."""
    with LedgerView(folder) as view:
        faults = view.faults()
        ended: dict[str, str] = {}
        for one in view.ended():
            text = json.dumps(one.row)
            if one.duplicate_of is None and one.key in ended:
                faults.append(f"{one.key} has two rows")
            if one.row["key"] != one.key or one.row["status"] != one.state:
                faults.append(f"{one.key} has a row of another unit or state")
            ended[one.key] = text
        counts = view.counts()
        if sum(counts[state] for state in ("done", "failed", "quarantined")) != len(ended):
            faults.append(f"{counts} and {len(ended)} rows")
        if num_open(view, 0, view.num_inputs) and view.num_inputs == NUM_UNITS + NUM_UNITS // 10:
            first_open = min(set(range(NUM_UNITS)) - {one.number for one in view.ended()})
            sealed_over = [one for one in view.sealed() if one >= first_open // SHARD_UNITS]
            inner = [shard for shard in sealed_over if num_open(view, *span(shard))]
            faults += [f"shard {shard} is sealed and open" for shard in inner]
    return ended, faults


def num_open(view: LedgerView, start: int, stop: int) -> int:
    """Return how many of the entries [start, stop), which are all there, have not ended."""
    return min(stop, view.num_inputs) - start - sum(1 for _ in view.ended(start, stop))


def span(shard: int) -> tuple[int, int]:
    return shard * SHARD_UNITS, (shard + 1) * SHARD_UNITS


def rearrange(folder: Path) -> None:
    """Change the list of inputs for ever: other lengths, another order, copies that come and go."""
    with open_ledger(folder) as ledger:
        for turn in itertools.count():
            length = 40 + turn % 7
            units = [unit_of(at, f"c{(at * (turn % 5 + 1) + turn) % 30}") for at in range(length)]
            ledger.add(units)
            ledger.close_inputs(length)


def kill_rearranging(folder: Path, dice: random.Random) -> list[str]:
    """Kill whoever changes the list, and say what does not hold afterwards."""
    faults: list[str] = []
    open_ledger(folder).close()
    for _ in range(NUM_KILLS // 2):
        child = os.fork()
        if child == 0:
            rearrange(folder)
        time.sleep(dice.uniform(0.01, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with LedgerView(folder) as view:
            faults += view.faults()
            if view.is_complete and view.fact("num_inputs") != str(view.num_inputs):
                faults.append(f"{view.num_inputs} inputs of {view.fact('num_inputs')}")
    return faults


def wait(dice: random.Random, log: Path) -> None:
    """Wait a moment: while the writer starts, or after it began some units, however fast it is."""
    if dice.random() < 0.3:
        time.sleep(dice.uniform(0.0, 0.04))
        return
    num_bytes = 65 * dice.randrange(NUM_UNITS // NUM_KILLS)
    while not log.exists() or log.stat().st_size < num_bytes:
        time.sleep(0.0005)
    time.sleep(dice.uniform(0.0, 0.003))


def main(folder: Path, seed: int) -> dict:
    """Kill, look, and go on; then compare with a run that nobody killed."""
    dice, faults = random.Random(seed), []
    killed, before, moments = 0, {}, Counter()
    for round_number in range(10 * NUM_KILLS):
        log = folder / f"begun-{round_number}"
        child = os.fork()
        if child == 0:
            write(folder / "run", log)
            os._exit(0)
        if killed < NUM_KILLS:
            wait(dice, log)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if log.exists():
            begun = log.read_text().split()
            faults += [f"{key} was worked again" for key in begun if key in before]
            moments["in work" if begun else "before work"] += 1
        try:
            now, found = look(folder / "run")
        except LedgerError as error:  # killed before there was one
            if (folder / "run" / "ledger.sqlite").exists() and "version 0" not in error.message:
                faults.append(error.message)
            moments["before the ledger"] += 1
            continue
        faults += found
        faults += [f"{key} lost its row" for key, row in before.items() if now.get(key) != row]
        before = now
        if not os.WIFSIGNALED(status):
            break
        killed += 1
    faults += kill_rearranging(folder / "rearranged", dice)
    write(folder / "unbroken", folder / "begun-unbroken")
    same = look(folder / "unbroken") == (before, [])
    ended = Counter(json.loads(row)["status"] for row in before.values())
    return {
        "killed": killed,
        "moments": moments,
        "faults": faults[:20],
        "ended": ended,
        "as_unbroken": same,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
