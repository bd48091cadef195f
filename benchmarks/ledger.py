"""What does the ledger of an archive cost? Units per second, the start of a finished run, memory.

100,000 entries: added, then worked (claimed by eight, each ended by itself with a row of 2 KB, in a
transaction of its own), then the run is begun again with everything done: the folder listed, every
file's hash looked up, every key made, all entries compared, the states counted. Good: at least
2,000 units/s worked, a start within 5 s, memory that does not grow with the entries.

    python benchmarks/ledger.py [--append] [--check]
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import can_measure_memory, parser_of, peak_rss_bytes, report, reset_peak_rss, rss_bytes

from llava_video.archive.content import content_hash
from llava_video.archive.items import items_of
from llava_video.archive.ledger import Ledger
from llava_video.archive.unit import Unit, UnitError, unit_key

NUM_UNITS, CHECK_UNITS = 100_000, 2_000
CLAIMED = 8
ROW_BYTES = 2_000


def main(arguments: list[str] | None = None) -> int:
    """Measure and say what is not as it should be; return the exit status."""
    options = parser_of(__doc__).parse_args(arguments)
    num_units = CHECK_UNITS if options.check else NUM_UNITS
    with tempfile.TemporaryDirectory() as folder:
        row = measure_ledger(Path(folder), num_units)
    for name, value in row.items():
        print(f"{name:24} {value:,.3f}" if isinstance(value, float) else f"{name:24} {value:,}")
    faults = faults_of(row)
    for fault in faults:
        print(fault)
    report("ledger", row | {"faults": faults}, append=options.append)
    return 1 if faults else 0


def measure_ledger(folder: Path, num_units: int) -> dict[str, Any]:
    """Return seconds, rates and bytes of one archive of so many files."""
    videos, run = folder / "videos", folder / "run"
    write_files(videos, num_units)
    row: dict[str, Any] = {"num_units": num_units}
    with open_ledger(run) as ledger:
        row["first_start_s"] = timed(lambda: start(ledger, videos, num_units))
        before = memory_bytes()
        row["work_s"] = timed(lambda: work(ledger))
        row["work_growth_bytes"] = memory_bytes() - before
        row["units_per_s"] = num_units / row["work_s"]
        row["read_rows_s"] = timed(lambda: read(ledger, num_units))
    begun_s = time.perf_counter()
    with open_ledger(run) as ledger:
        start(ledger, videos, num_units)
        row["start_finished_s"] = time.perf_counter() - begun_s
        if ledger.counts()["done"] != num_units:
            raise AssertionError(f"{ledger.counts()} of {num_units} units")
    row["peak_bytes"] = peak_rss_bytes() if can_measure_memory() else 0
    row["ledger_bytes"] = sum(path.stat().st_size for path in run.iterdir())
    return row


def faults_of(row: dict[str, Any]) -> list[str]:
    """Say what is not as it should be."""
    limits = (
        ("units_per_s", row["units_per_s"] >= 2_000),
        ("start_finished_s", row["start_finished_s"] <= 5.0),
        ("work_growth_bytes", row["work_growth_bytes"] <= 8 * 2**20),
        ("peak_bytes", row["peak_bytes"] <= 300 * 2**20),
    )
    return [f"{name} = {row[name]:,}" for name, is_good in limits if not is_good]


def open_ledger(run: Path) -> Ledger:
    """Open the ledger as a run does."""

    def no_row(unit: Unit, error: UnitError, attempts: int, state: str) -> dict[str, Any]:
        raise AssertionError(f"{unit.key}: {error} {attempts} {state}")

    return Ledger(run, settings_digest="benchmark", error_row=no_row)


def start(ledger: Ledger, videos: Path, num_units: int) -> None:
    """Do what every run does before it works."""
    ledger.add(units_of(ledger, videos))
    ledger.close_inputs(num_units)
    ledger.counts()


def units_of(ledger: Ledger, videos: Path) -> Iterator[Unit]:
    """Yield the unit of every file of a folder."""
    for item in items_of([str(videos)], prompts=("What happens?",)):
        content = content_hash(item.address, ledger)
        key = unit_key(content, item, "task", "model", prompts=("What happens?",))
        yield Unit(key=key, number=item.number, item=item, content_hash=content)


def work(ledger: Ledger) -> None:
    """End every unit with a row."""
    text = "x" * ROW_BYTES
    while claimed := ledger.claim(CLAIMED, "worker"):
        for unit in claimed:
            ledger.finish(unit.key, {"key": unit.key, "text": text})


def read(ledger: Ledger, num_units: int) -> None:
    """Read every row."""
    num_rows = sum(1 for _ in ledger.ended())
    if num_rows != num_units:
        raise AssertionError(f"{num_rows} rows of {num_units} units")


def write_files(videos: Path, num_units: int) -> None:
    """Write files that differ, as small as can be, a thousand to a folder."""
    for number in range(num_units):
        path = videos / f"{number // 1000:03d}" / f"{number:06d}.mp4"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_text(str(number), encoding="ascii")


def timed(run: Any) -> float:
    """Return the seconds a function takes."""
    begun_s = time.perf_counter()
    run()
    return time.perf_counter() - begun_s


def memory_bytes() -> int:
    """Return the memory held now, the peak begun anew; 0 where it cannot be told."""
    if not can_measure_memory():
        return 0
    reset_peak_rss()
    return rss_bytes()


if __name__ == "__main__":
    sys.exit(main())
