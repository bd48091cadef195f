"""How right are the demo model's alerts, over confidence thresholds, with and without hits needed?

Scenes of the small world as a camera sees them (split "monitor", never trained on): windows of 8 s,
one every 4 s, two frames a second. Of each scene two rules: "Is there a COLOUR SHAPE now?" of an
object that is there some of the time, or always, whose truth is known to the frame; and of one that
never is. Every window is asked once; thresholds and hits are tried on the answers by the rules' own
function. Compute bound. Good: precision and recall of 95 % at some threshold.

    python benchmarks/monitor_demo.py [--model demo] [--clips 100] [--seed 0] [--append] [--check]
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from harness import parser_of, report

from llava_video.api import LlavaVideo, load
from llava_video.engine.settings import EngineSettings
from llava_video.monitor.labels import Label
from llava_video.monitor.questions import WindowFrames, ask_window
from llava_video.monitor.rules import Observation
from llava_video.monitor.score_table import curve_table
from llava_video.monitor.scoring import THRESHOLDS, best_point, threshold_curve
from llava_video.monitor.settings import Rule
from llava_video.world.composer import compose
from llava_video.world.render import render_at
from llava_video.world.scene import Scene
from llava_video.world.splits import split_settings
from llava_video.world.vocabulary import COLOURS, SHAPES, with_article

WINDOW_S, STEP_S, FPS = 8.0, 4.0, 2.0
SLACK_S = 2.0
LEAST_S = 2.0  # of a label: what is shorter is between two windows' ends
NEEDED = ((1, 1), (2, 2), (2, 3))
AIM = 0.95
RULE = Rule(name="there", question="Is it there?", cooldown_s=0.0, hits=1)


def main(arguments: list[str] | None = None) -> int:
    """Ask, score over thresholds, and say so."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="demo", help="a checkpoint's folder or name")
    parser.add_argument("--clips", type=int, default=100, help="scenes")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    num_clips = 2 if asked.check else asked.clips
    seen: dict[str, list[Observation]] = {}
    labels: list[Label] = []
    with load(asked.model, engine=EngineSettings(kept_rows_bytes=2**28)) as model:
        for number in range(num_clips):
            scene = compose(split_settings("monitor"), "monitor", asked.seed, number)
            for camera, question, spans in claims_of(scene):
                seen[camera] = list(answers(model, scene, question))
                labels += [Label(start_s=a, end_s=b, rule=RULE.name, camera=camera)
                           for a, b in spans]  # fmt: skip
    points = threshold_curve(RULE, seen, labels, THRESHOLDS, needed=NEEDED, slack_s=SLACK_S)
    print(curve_table(points))
    best = best_point(points)
    row: dict[str, Any] = {
        "model": asked.model,
        "clips": num_clips,
        "windows": sum(map(len, seen.values())),
        "labels": len(labels),
        "curve": [
            {"confidence": one.confidence, "hits": one.hits, "of": one.of,
             "precision": one.score.precision, "recall": one.score.recall,
             "delay_s": one.score.delay_s} for one in points
        ],
    }  # fmt: skip
    if best is not None:
        row |= {"best": [best.confidence, best.hits, best.of]}
        row |= {"precision": best.score.precision, "recall": best.score.recall}
    print(f"{row['windows']:,} windows, {len(labels):,} labels")
    report("monitor_demo", row, append=asked.append)
    return 0


def claims_of(scene: Scene) -> Iterator[tuple[str, str, list[tuple[float, float]]]]:
    """Yield (camera, question, spans in which yes is right): one that is there, one that never is.

    Where several objects can be asked about, the one that comes or goes most often.
    """
    looks = [(thing.colours[0][1], thing.shape) for thing in scene.things]
    fit = [
        idx
        for idx, thing in enumerate(scene.things)
        if not thing.changes_colour and looks.count(looks[idx]) == 1
    ]
    found = [(spans_of(scene, idx), idx) for idx in fit]
    found = [(spans, idx) for spans, idx in found if spans]
    if found:
        spans, idx = min(found, key=lambda one: (sum(b - a for a, b in one[0]), one[1]))
        colour, shape = looks[idx]
        yield f"{scene.name} there", question_of(colour, shape), spans
    ever = {(colour, thing.shape) for thing in scene.things for _, colour in thing.colours}
    shapes = {shape for _, shape in ever}
    never = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in ever]
    hard = [pair for pair in never if pair[1] in shapes] or never
    yield f"{scene.name} never", question_of(*hard[len(scene.name) * 7 % len(hard)]), []


def question_of(colour: str, shape: str) -> str:
    """Ask as the world asks."""
    return f"Is there {with_article(f'{colour} {shape}')} now?"


def spans_of(scene: Scene, idx: int) -> list[tuple[float, float]]:
    """Return when an object shows as a whole, for long enough."""
    spans: list[tuple[float, float]] = []
    begun_s: float | None = None
    for number in range(scene.num_frames + 1):
        time_s = scene.time_of(number)
        is_there = number < scene.num_frames and scene.state_at(time_s)[idx].view == "whole"
        if is_there and begun_s is None:
            begun_s = time_s
        elif not is_there and begun_s is not None:
            spans += [(begun_s, time_s)] if time_s - begun_s >= LEAST_S else []
            begun_s = None
    return spans


def answers(model: LlavaVideo, scene: Scene, question: str) -> Iterator[Observation]:
    """Ask every window of a scene."""
    rule = replace(RULE, question=question)
    start_s = 0.0
    while start_s + WINDOW_S <= scene.length_s:
        times_s = [start_s + k / FPS for k in range(int(WINDOW_S * FPS))]
        idxs = [min(scene.num_frames - 1, round(time_s * scene.rate_hz)) for time_s in times_s]
        window = WindowFrames(
            frames=render_at(scene, idxs), times_s=[k / FPS for k in range(len(idxs))],
            start_s=start_s, end_s=start_s + WINDOW_S,
        )  # fmt: skip
        yield ask_window(model, window, [rule], guard=False).observations[RULE.name]
        start_s += STEP_S


if __name__ == "__main__":
    sys.exit(main())
