"""What a parity run found: one `Check` per compared quantity, and how they are shown.

Compares arrays; knows no model and no file.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

# What the golden sets suggest for float32 on a CPU; independent implementations reached a tenth.
ROWS_LIMIT = 1e-4
LOGITS_LIMIT = 2e-3
# Where independent implementations reached 7e-5, and 1.3e-4 with a second model in between.
CLOSE_LOGITS_LIMIT = 2e-4
# Where the reference's two best logits are closer than this, either may win.
ARGMAX_MARGIN = 5e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison.

    Attributes:
        model: the model folder.
        case: the case or table.
        stage: the stage of the data path.
        key: what was compared, by the set's own key.
        error: the largest absolute difference; for exact comparisons the number of differences.
        limit: the largest error that passes.
        note: what stood in the way of a comparison, "" when nothing did.
    """

    model: str
    case: str
    stage: str
    key: str
    error: float
    limit: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit; NaN is not."""
        return self.error <= self.limit

    def to_json(self) -> dict[str, Any]:
        """Return plain values; an error that is no number is told as text."""
        values = asdict(self)
        values["passed"] = self.passed
        values["error"] = self.error if np.isfinite(self.error) else str(self.error)
        return values


@dataclass(slots=True)
class Findings:
    """The checks of one case on one model."""

    model: str
    case: str
    checks: list[Check] = field(default_factory=list)

    def near(self, stage: str, key: str, ours: Any, theirs: Any, limit: float) -> None:
        """Compare numbers by their largest absolute difference."""
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        if ours.shape != theirs.shape:
            return self._add(stage, key, np.inf, limit, f"{ours.shape} is not {theirs.shape}")
        with np.errstate(invalid="ignore"):
            difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        # NaN in either is a difference of infinity, and max() of nothing is none.
        error = float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max(initial=0.0))
        return self._add(stage, key, error, limit, "")

    def same(self, stage: str, key: str, ours: Any, theirs: Any) -> None:
        """Compare values that must be equal: the error is the number of unequal elements."""
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        if ours.shape != theirs.shape:
            return self._add(stage, key, np.inf, 0, f"{ours.shape} is not {theirs.shape}")
        unequal = ours != theirs
        note = ""
        if unequal.any():
            first = tuple(int(i) for i in np.argwhere(unequal)[0])
            note = f"at {first}: {ours[first]!r}, reference {theirs[first]!r}"[:200]
        return self._add(stage, key, float(unequal.sum()), 0, note)

    def fail(self, stage: str, key: str, note: str) -> None:
        """Note something that could not be compared."""
        self._add(stage, key, np.inf, 0, note)

    def _add(self, stage: str, key: str, error: float, limit: float, note: str) -> None:
        self.checks.append(
            Check(
                model=self.model,
                case=self.case,
                stage=stage,
                key=key,
                error=error,
                limit=limit,
                note=note,
            )
        )


def worst_by_stage(checks: Iterable[Check]) -> dict[str, Check]:
    """Return the worst check of every stage, stages in the order they first occur."""
    worst: dict[str, Check] = {}
    for check in checks:
        held = worst.get(check.stage)
        if held is None or _badness(check) > _badness(held):
            worst[check.stage] = check
    return worst


def table(checks: Sequence[Check]) -> Iterator[str]:
    """Yield one line per model, case and stage: the worst of its checks."""
    for (model, case), group in groupby(checks, key=lambda check: (check.model, check.case)):
        for stage, check in worst_by_stage(group).items():
            word = "pass" if check.passed else "FAIL"
            note = f"  {check.key}: {check.note}" if check.note else ""
            limit = f"{check.limit:.0e}" if check.limit else "exact"
            yield f"{word}  {model:<20} {case:<26} {stage:<15} {check.error:9.2e} {limit:>6}{note}"


def summary(checks: Sequence[Check]) -> Iterator[str]:
    """Yield one line per stage over all models and cases."""
    for stage, check in worst_by_stage(checks).items():
        num = sum(one.stage == stage for one in checks)
        limit = f"{check.limit:.0e}" if check.limit else "exact"
        yield f"{stage:<15} {num:5} comparisons, largest error {check.error:.2e}, limit {limit}"


def _badness(check: Check) -> tuple[bool, float, float]:
    return not check.passed, check.error / check.limit if check.limit else check.error, check.error
