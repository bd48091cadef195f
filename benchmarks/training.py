"""How much faster is a step of training than transformers' LlavaOnevision with its own Trainer?

The same weights, tiles, tokens, frozen parts and batches; clips of as many frames, conversations of
different lengths. Theirs is the plain loop: padded batches, a mask, logits of every position. Ours
packs them without padding, and the head sees only rows that lead to a learned token. Both run
`Trainer.train` over the same batches, AdamW and SDPA; what is counted are tokens that are no
padding, in the steps after the first. Nothing is decoded. Compute bound. Good: at least 1.3 x their
tokens/s, the losses of the first example equal in float32.

`half_b` is LLaVA-OneVision 0.5B with SigLIP so400m, of drawn weights: bfloat16 autocast and
gradient checkpointing on both sides, once with the tower frozen and once with all parts learning.
On a GPU one side runs after the other, on a CPU they take turns.

    python benchmarks/training.py [--size tiny|small|half_b] [--device cpu|cuda] [--steps 4]
        [--append] [--check]
"""

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import Timing, parser_of, report
from training_sides import SIZES, Case, Side, examples_of, our_side, their_side

from llava_video.train.forward import Example
from llava_video.train.settings import PARTS

LEAST_RATIO = 1.3
# Losses in float32 of models this deep differ by so much where only the order of sums does.
_MOST_APART = {"tiny": 1e-4, "small": 1e-4, "half_b": 2e-3}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where ours is too slow or learns something else."""
    started_s = time.perf_counter()
    parser = parser_of(__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    here = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=here)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--budget-s", type=float, help="no run begins after so long")
    asked = parser.parse_args(arguments)
    if asked.device != here:
        parser.error(f"the Trainer runs on {here} here; CUDA_VISIBLE_DEVICES= hides a GPU.")
    torch.backends.cudnn.allow_tf32 = False  # losses are compared in float32
    cases, budget_s = _cases(asked), asked.budget_s or (80 if here == "cuda" else 900)
    repeats = asked.repeats or (2 if asked.check else 3 if asked.device == "cuda" else 7)
    is_good = True
    for idx, case in enumerate(cases):
        share = (idx + 1) / len(cases)
        with tempfile.TemporaryDirectory() as scratch:
            until_s = started_s + budget_s * share
            row = compare(case, Path(scratch), repeats=repeats, until_s=until_s)
        report(f"training_{case.size}", {**row, "check": asked.check}, append=asked.append)
        is_good &= row["same_loss"] and (row["ratio"] >= LEAST_RATIO or asked.check)
    return 0 if is_good else 1


def _cases(asked: Any) -> list[Case]:
    """Return what is compared: two cases where the published stages differ, at toy size too."""
    if asked.check:
        case = Case(size="tiny", device=asked.device, frames=2, steps=2)
        stage = replace(case, learn=PARTS[1:], bf16=True, checkpointing=True)
        return [stage, case]
    case = Case(size=asked.size, device=asked.device, steps=asked.steps, batch=asked.batch)
    if asked.size != "half_b":
        return [replace(case, frames=asked.frames or 8)]
    case = replace(case, frames=asked.frames or 16, bf16=True, checkpointing=True)
    return [replace(case, learn=PARTS[1:]), case]


def compare(case: Case, scratch: Path, *, repeats: int, until_s: float) -> dict[str, Any]:
    """Time both loops over the same examples; return the row."""
    examples = examples_of(case.config, case.frames, case.batch * (case.steps + 1))
    makers: dict[str, Callable[[], Side]] = {
        "llava_video": lambda: our_side(case, examples, scratch / "ours"),
        "transformers": lambda: their_side(case, examples, scratch / "theirs"),
    }
    run = _one_by_one if case.device == "cuda" else _in_turn
    timings, losses, peaks = run(makers, repeats, until_s)
    counted = examples[case.batch :]
    num_tokens = sum(example.num_rows for example in counted)
    longest = _longest(counted, case.batch)
    rates = {name: num_tokens / timing.p50_s for name, timing in timings.items()}
    theirs, ours = timings["transformers"], timings["llava_video"]
    # Taken in turn, neighbouring runs have met the same moments of the machine.
    pairs = zip(theirs.seconds, ours.seconds, strict=False)
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"{case.size}, {', '.join(case.learn)} learning:")
    for name, timing in timings.items():
        print(f"  {name:<13} {rates[name]:9,.0f} tokens/s; {case.steps} steps {timing}")
    print(f"  {ratio:.2f} x; padding is {1 - num_tokens / longest:.0%} of their batches.")
    apart = abs(losses["transformers"] - losses["llava_video"])
    return {
        "size": case.size,
        "learn": list(case.learn),
        "dtype": "bfloat16 autocast" if case.bf16 else "float32",
        "checkpointing": case.checkpointing,
        "frames": case.frames,
        "batch": case.batch,
        "steps": case.steps,
        "tokens": num_tokens,
        "padded_tokens": longest,
        "ratio": ratio,
        "best_ratio": theirs.best_s / ours.best_s,
        "tokens_per_s": rates,
        "losses": losses,
        "same_loss": apart <= _MOST_APART[case.size],
        "peak_bytes": peaks,
        "timings": {name: timing.to_json() for name, timing in timings.items()},
    }


_Found = tuple[dict[str, Timing], dict[str, float], dict[str, int]]


def _in_turn(makers: Mapping[str, Callable[[], Side]], repeats: int, until_s: float) -> _Found:
    """Make all sides and run them in turn: a slow moment of the machine meets all of them."""
    sides = {name: make() for name, make in makers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):  # the first warms up
        if repeat > 1 and time.perf_counter() >= until_s:
            break
        for name, side in sides.items():
            taken_s = side.run_s()
            if repeat:
                seconds[name].append(taken_s)
    timings = {name: Timing(tuple(taken)) for name, taken in seconds.items()}
    return timings, {name: side.first_loss for name, side in sides.items()}, {}


def _one_by_one(makers: Mapping[str, Callable[[], Side]], repeats: int, until_s: float) -> _Found:
    """Make and run one side after the other: both may not fit on the device together."""
    timings: dict[str, Timing] = {}
    losses: dict[str, float] = {}
    peaks: dict[str, int] = {}
    for idx, (name, make) in enumerate(makers.items()):
        begun_s = time.perf_counter()
        share_s = (until_s - begun_s) / (len(makers) - idx)
        side = make()
        torch.cuda.reset_peak_memory_stats()
        taken: list[float] = []
        while len(taken) < repeats and (not taken or time.perf_counter() < begun_s + share_s):
            taken.append(side.run_s())
        timings[name] = Timing(tuple(taken))
        losses[name], peaks[name] = side.first_loss, torch.cuda.max_memory_allocated()
        print(
            f"  {name}: {timings[name]}, {time.perf_counter() - begun_s:.0f} s in all", flush=True
        )
        del side
        gc.collect()
        torch.cuda.empty_cache()
    return timings, losses, peaks


def _longest(examples: Sequence[Example], batch: int) -> int:
    """Return the tokens of their batches, in the order given."""
    batches = [examples[i : i + batch] for i in range(0, len(examples), batch)]
    return sum(max(one.num_rows for one in some) * len(some) for some in batches)


if __name__ == "__main__":
    sys.exit(main())
