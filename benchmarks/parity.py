"""Does every stage give what the reference gave? Runs a folder in the golden format and compares.

    python benchmarks/parity.py ../shared/golden/onevision_video [--models NAME …] [--json]

Reads models, cases and tables of the folder, runs every case on every model it belongs to through
the library's public stages, and prints per model, case and stage the largest error, the limit and
pass or fail. Keys that nothing compares are named and do no harm; a case or table that could not be
read at all is a failure, and so is one that no model takes. Exit status 0 only when everything was
read and passed. `docs/parity.md` says what is compared with what, and which visual layout a case
means on a converted checkpoint.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from parity_case import cases_of
from parity_checks import Check, Findings, summary, table, worst_by_stage
from parity_model import Candidate, candidate
from parity_plan import KNOWN_FACTS
from parity_run import SampleRun
from parity_set import GoldenSet, read_set
from parity_stages import compare_case
from parity_tables import compare_pooling, is_pooling, kind_of, rows_of

from llava_video.errors import LlavaVideoError


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare a folder; return the exit status."""
    asked = _arguments(arguments)
    before_s = time.perf_counter()
    try:
        golden = read_set(asked.folder)
        models = _chosen(golden.tested, asked.models)
        cases = _chosen({**golden.cases, **golden.facts, **golden.tables}, asked.cases)
    except (OSError, ValueError) as error:
        print(f"parity: {error}", file=sys.stderr)
        return 1
    report = Report()
    report.add(golden, models, cases, asked.device)
    if not asked.models:
        report.note_untaken(cases)
    passed = report.passed
    if asked.json:
        print(json.dumps({"folder": str(asked.folder), **report.to_json()}))
    else:
        for line in report.lines():
            print(line)
        seconds = time.perf_counter() - before_s
        print(f"{'passed' if passed else 'FAILED'} in {seconds:.0f} s: {asked.folder}")
    return 0 if passed else 1


class Report:
    """Everything a run found.

    Attributes:
        checks: every comparison, models and cases in order.
        unread: (model, case or table): why it could not be read.
        unknown_keys: case → keys that nothing compares.
    """

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.unread: dict[tuple[str, str], str] = {}
        self.unknown_keys: dict[str, tuple[str, ...]] = {}

    @property
    def passed(self) -> bool:
        """Whether something was compared, everything was read, and all of it passed."""
        return bool(self.checks) and not self.unread and all(c.passed for c in self.checks)

    def add(
        self, golden: GoldenSet, models: Sequence[str], cases: Sequence[str], device: str = "cpu"
    ) -> None:
        """Run cases and tables of a set on its models."""
        candidates = [one for name in models if (one := self._candidate(golden, name))]
        for tested in candidates:
            for name in cases:
                if name not in golden.tables:
                    findings = Findings(tested.name, name)
                    self._try(findings, self._run, golden, tested, findings, device)
        for name in cases:
            if name in golden.tables:
                self._add_table(golden, name, candidates)

    def note_untaken(self, cases: Sequence[str]) -> None:
        """Note the cases and tables that none of the set's models took."""
        taken = {check.case for check in self.checks} | {case for _, case in self.unread}
        for case in cases:
            if case not in taken and "every case" not in taken:
                self.unread["no model", case] = "it belongs to none of the models."

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        yield from table(self.checks)
        yield ""
        yield from summary(self.checks)
        for case, keys in self.unknown_keys.items():
            yield f"not compared in {case}: {', '.join(keys)}"
        for (model, case), why in self.unread.items():
            yield f"UNREAD  {model}  {case}: {why}"

    def to_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {
            "passed": self.passed,
            "torch": torch.__version__,
            "stages": {
                stage: check.to_json() for stage, check in worst_by_stage(self.checks).items()
            },
            "checks": [check.to_json() for check in self.checks],
            "unknown_keys": {case: list(keys) for case, keys in self.unknown_keys.items()},
            "unread": [
                {"model": model, "case": case, "why": why}
                for (model, case), why in self.unread.items()
            ],
        }

    def _candidate(self, golden: GoldenSet, name: str) -> Candidate | None:
        try:
            return candidate(name, golden.models, golden.base_of(name))
        except (LlavaVideoError, ValueError) as error:
            self.unread[name, "every case"] = str(error)
            return None

    def _try(self, findings: Findings, compare: Callable[..., None], *arguments: object) -> None:
        try:
            compare(*arguments)
        except Exception as error:  # noqa: BLE001 - one case must not end the others
            why = f"{type(error).__name__}: {error}"
            self.unread[findings.model, findings.case] = why
        self.checks += findings.checks

    def _add_table(self, golden: GoldenSet, name: str, candidates: Sequence[Candidate]) -> None:
        kind = kind_of(golden.tables[name])
        if kind is None:
            self.unread["no model", name] = "a table of an unknown kind."
            return
        rows = list(rows_of(golden.tables[name]))
        self._note_unknown(name, kind.unknown(rows))
        found: list[Findings] = []
        for tested in kind.models(candidates):
            found.append(Findings(tested.name if tested else "-", name))
            self._try(found[-1], kind.compare, found[-1], tested, rows)
        if kind.asks == "one" and found:
            # No table names its tokenizer: the model whose ids it has is the one it is of.
            best = min(found, key=lambda one: sum(not check.passed for check in one.checks))
            self.checks = [c for c in self.checks if c.case != name or c.model == best.model]

    def _run(self, golden: GoldenSet, tested: Candidate, findings: Findings, device: str) -> None:
        name = findings.case
        facts = golden.facts.get(name, {})
        if facts.get("checkpoint") not in (None, tested.name, tested.origin):
            return
        arrays = golden.arrays_of(name)
        if is_pooling(arrays):
            self._note_unknown(name, compare_pooling(findings, arrays))
            return
        for case in cases_of(name, arrays, facts):
            if case.model not in (None, tested.name, tested.origin):
                continue
            unread_facts = (f"{key} of cases.json" for key in case.facts if key not in KNOWN_FACTS)
            self._note_unknown(name, (*case.unknown_keys, *unread_facts))
            config = tested.config_with(case.overrides)
            model = tested.model_with(config, case.separator, device)
            runs = [SampleRun(one, model, tested, config) for one in case.samples]
            num_before = len(findings.checks)
            compare_case(findings, case, runs, model, config, golden.logits_limit)
            if len(findings.checks) == num_before:
                self.unread[tested.name, case.name] = "it stores nothing that is compared."

    def _note_unknown(self, case: str, keys: Sequence[str]) -> None:
        if keys:
            self.unknown_keys[case] = tuple(keys)


def _chosen(known: Mapping[str, Any], asked: Sequence[str] | None) -> list[str]:
    missing = [name for name in asked or () if name not in known]
    if missing:
        raise ValueError(f"no {', '.join(missing)}; there are {', '.join(known)}.")
    return list(asked or known)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="holds cases/ and model folders")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only these model folders")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only these cases and tables")
    parser.add_argument("--device", default="cpu", help="where the model runs, in float32")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
