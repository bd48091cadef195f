"""A clip's truth and what is asked of it → which rows should look at which rows of the video."""

import itertools
from collections.abc import Collection, Sequence

from llava_video.model.labels import IGNORED
from llava_video.train.dense_labels import check_rows, placed, sign_cell
from llava_video.train.pointer import Pointer, Rows
from llava_video.values import VisualPlan
from llava_video.world.caption import Telling
from llava_video.world.mentions import SIGN, mentions
from llava_video.world.moments import Span, moments
from llava_video.world.scene import Scene

# By the numbers that `mentions` gives: when each thing shows, s, and in which row.
Shown = dict[int, tuple[tuple[float, int], ...]]


def rows_shown(scene: Scene, plan: VisualPlan) -> Shown:
    """Return the rows of a visual, of one tile a frame, in which each thing's middle is.

    Args:
        scene: the truth.
        plan: of its frames, with a newline after each map row.

    Returns:
        Nothing of what never shows.

    Raises:
        ConfigError: as `check_rows`.
    """
    check_rows(plan)
    rows, cols = plan.map_size
    found: dict[int, list[tuple[float, int]]] = {}
    sign = sign_cell(scene, rows, cols)
    for frame, time_s in enumerate(plan.times_s):
        cells = placed(scene, scene.state_at(time_s), rows, cols)
        for (row, col), inside in cells.items():
            for state in inside:
                at = (frame * rows + row) * (cols + 1) + col
                found.setdefault(state.thing, []).append((time_s, at))
        if sign is not None:
            at = (frame * rows + sign[0]) * (cols + 1) + sign[1]
            found.setdefault(SIGN, []).append((time_s, at))
    return {thing: tuple(places) for thing, places in found.items()}


def pointers_of(
    scene: Scene,
    shown: Shown,
    pairs: Sequence[tuple[str, str]],
    tails: Sequence[int],
    ids: Sequence[int],
    labels: Sequence[int],
    nouns: Collection[tuple[int, ...]],
    *,
    at_moments: bool,
) -> tuple[Pointer, ...]:
    """Return where the tails of an example should look.

    Args:
        scene: the truth.
        shown: of `rows_shown`.
        pairs: a question and its answer for each tail.
        tails: where they begin among the ids.
        ids: of the example.
        labels: as many.
        nouns: the ids of each word that a name ends with.
        at_moments: whether answers look only at when it matters, as `moments` says, if the thing
            shows then; else at all its rows, as names do.
    """
    found: list[Pointer] = []
    bounds = itertools.pairwise((*tails, len(ids)))  # none where the questions come in turn
    for (question, answer), (start, stop) in zip(pairs, bounds, strict=True):
        learned = next((at for at in range(start, stop) if labels[at] != IGNORED), stop)
        named = mentions(scene, question)
        about = [thing for thing in named if thing is not None]
        if named and not about:  # the answer names it: "Which object hides?"
            about = [thing for thing in mentions(scene, answer) if thing is not None]
        groups = tuple(
            _rows_of(shown[thing], _spans(scene, question, thing, shown) if at_moments else ())
            for thing in dict.fromkeys(about)
            if thing in shown
        )
        if groups and learned < stop:
            found += _looks(learned - 1, groups)
        asked = tuple(ids[start:learned])
        ends = [
            start + at - 1
            for at in range(1, len(asked) + 1)
            if any(asked[max(0, at - len(noun)) : at] == noun for noun in nouns)
        ]
        if len(ends) == len(named):
            found += (
                Pointer(at, "name", (_rows_of(shown[thing]),))
                for at, thing in zip(ends, named, strict=True)
                if thing is not None and thing in shown
            )
    return tuple(found)


def pointers_of_caption(
    told: Sequence[tuple[Telling, int]], shown: Shown, start: int
) -> tuple[Pointer, ...]:
    """Return where a caption's rows should look: at what the part they say tells of, when it shows.

    A thing that shows in none of its part's spans is looked at wherever it shows. A row looks at
    what the next one is about: where a part ends, at what comes then.

    Args:
        told: the parts of the caption, and how many ids each has.
        shown: of `rows_shown`.
        start: of the caption's first id, among the example's.
    """
    found: list[Pointer] = []
    for telling, num_ids in told:
        groups = tuple(
            _rows_of(shown[thing], telling.spans) for thing in telling.things if thing in shown
        )
        if groups:
            found += [
                one for row in range(start - 1, start + num_ids - 1) for one in _looks(row, groups)
            ]
        start += num_ids
    return tuple(found)


def trails_of(shown: Shown) -> tuple[Pointer, ...]:
    """Return where the rows of a visual should look: at where what they show was before.

    Args:
        shown: of `rows_shown`.

    Returns:
        A pointer for each row that something shows in, and not for the first time.
    """
    found: dict[int, list[Rows]] = {}
    for thing, places in shown.items():
        if thing != SIGN:  # it stays where it is
            for (_, before), (_, row) in itertools.pairwise(places):
                found.setdefault(row, []).append((before,))
    return tuple(Pointer(row, "trail", tuple(before)) for row, before in found.items())


def _looks(row: int, groups: tuple[Rows, ...]) -> tuple[Pointer, ...]:
    """Return where a row that says something of one or two things should look, in all roles."""
    return (
        Pointer(row, "answer", groups),
        Pointer(row, "first", groups[:1]),
        Pointer(row, "second", groups[1:2] or groups),
    )


def _spans(scene: Scene, question: str, thing: int, shown: Shown) -> tuple[Span, ...]:
    return moments(scene, question, thing, [time_s for time_s, _ in shown[thing]])


def _rows_of(shown: Sequence[tuple[float, int]], spans: Sequence[Span] = ()) -> Rows:
    """Return the rows of a thing within some spans; all of them where it shows in none."""
    within = [row for time_s, row in shown if any(low <= time_s < high for low, high in spans)]
    return tuple(within or (row for _, row in shown))
