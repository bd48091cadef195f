"""A caption of the small world and its clip → how much is told, and how much is made up.

    objects named   objects that the caption mentions, of those that the true one of its style does
    events named    events that it tells, of those that the true one does
    invented        stated objects and events that are not true, of all that it states
    details right   sizes, places, background, sign and numbers that are true, of those it states

The true caption tells what is certain. What is uncertain may be told or left out: it is neither
missed nor invented. An event is told by its object, its kind, its direction, its new colour, its
speed where one is stated, and its beginning where one is stated, within half a second. Each object
and event can be stated once; a second time is one too many. A sentence that is no form of the
small world is stated and not true, and so is "Nothing happens." where something certainly does.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from llava_video.eval.example import Measure
from llava_video.world.caption import CaptionStyle, caption
from llava_video.world.caption_reader import (
    Claim,
    DetailClaim,
    EventClaim,
    Name,
    NothingHappens,
    ObjectClaim,
    Unread,
    read_caption,
)
from llava_video.world.question import TOLERANCE_S
from llava_video.world.scene import Event
from llava_video.world.witness import Witness

# Kinds whose clause says where it goes; others have a direction that is not told.
_WITH_WAY: Final = ("enter", "leave", "move")


def measure_caption(witness: Witness, style: CaptionStyle, text: str) -> tuple[Measure, ...]:
    """Compare a caption with the truth.

    Args:
        witness: what is certain of the clip.
        style: what was asked for.
        text: the caption; "" where there is none.

    Returns:
        "objects named", "events named", "invented" and "details right"; a share of nothing where
        there is nothing to tell, or nothing is stated.
    """
    truth = _Truth(witness)
    claims, right = read_caption(text), read_caption(caption(witness, style))
    due_things, due_events = truth.things_in(right), set(truth.events_of(right)) - {None}
    told_events = truth.events_of(claims)
    stated = [claim for claim in claims if not isinstance(claim, DetailClaim)]
    num_invented = sum(1 for _ in truth.false_objects(claims)) + told_events.count(None)
    num_invented += sum(map(truth.is_false_word, claims))
    details = [is_right for is_right in truth.details(claims) if is_right is not None]
    return (
        Measure("objects named", len(due_things & truth.things_in(claims)), len(due_things)),
        Measure("events named", len(due_events & set(told_events)), len(due_events)),
        Measure("invented", num_invented, len(stated)),
        Measure("details right", sum(details), len(details)),
    )


class _Truth:
    """What claims about one clip are held against."""

    def __init__(self, witness: Witness) -> None:
        self.witness, self.scene = witness, witness.scene

    def thing_of(self, name: Name) -> int | None:
        """Return the number of the one object a name fits at some time; None of no or several."""
        fits = [
            idx
            for idx, thing in enumerate(self.scene.things)
            if thing.shape == name.shape
            and (not name.colour or name.colour in {colour for _, colour in thing.colours})
        ]
        return fits[0] if len(fits) == 1 else None

    def things_in(self, claims: Sequence[Claim]) -> set[int | None]:
        """Return the objects that are mentioned in any way."""
        names = [claim.name for claim in claims if isinstance(claim, ObjectClaim | EventClaim)]
        names += [claim.other for claim in claims if isinstance(claim, EventClaim) and claim.other]
        return {self.thing_of(name) for name in names} - {None}

    def false_objects(self, claims: Iterable[Claim]) -> Iterator[ObjectClaim]:
        """Yield the stated objects that are not there, or that were stated before."""
        told: set[int] = set()
        for claim in claims:
            if not isinstance(claim, ObjectClaim):
                continue
            idx = self.thing_of(claim.name)
            if idx is None or idx in told or (claim.at_start and not self._may_start(idx, claim)):
                yield claim
            else:
                told.add(idx)

    def events_of(self, claims: Iterable[Claim]) -> list[int | None]:
        """Return which event each claim of one tells; None for one that did not happen."""
        left = dict(enumerate(self.scene.events))
        found: list[int | None] = []
        for claim in claims:
            if not isinstance(claim, EventClaim):
                continue
            fits = [idx for idx, event in left.items() if self._is(claim, event)]
            # What is certain first, so that an uncertain one beside it does not take its claim.
            best = min(fits, key=lambda i: (not self.witness.is_certain(left[i]), i), default=None)
            found.append(best)
            if best is not None:
                del left[best]
        return found

    def is_false_word(self, claim: Claim) -> bool:
        """Say whether a claim is of no known form, or that nothing happens where something does."""
        if isinstance(claim, NothingHappens):
            return bool(self.witness.certain_events)
        return isinstance(claim, Unread)

    def details(self, claims: Iterable[Claim]) -> Iterator[bool | None]:
        """Yield for every detail whether it is right; None where that is not certain."""
        for claim in claims:
            if isinstance(claim, DetailClaim):
                true = self._detail(claim.kind)
                yield None if true is None else claim.value == true
            idx = self.thing_of(claim.name) if isinstance(claim, ObjectClaim) else None
            if not isinstance(claim, ObjectClaim) or idx is None:
                continue
            if claim.size:
                yield claim.size == self.witness.size(idx, 0.0)
            place = self.witness.place(idx, at_end=False)
            if claim.place and place is not None:
                yield claim.place == place

    def _may_start(self, idx: int, claim: ObjectClaim) -> bool:
        """Say whether an object may be seen, in the stated colour, when the clip begins."""
        num_frames = max(1, round(self.witness.gap_s * self.scene.rate_hz))
        views = {frame[idx].view for frame in self.witness.states[:num_frames]}
        first_colour = self.scene.things[idx].colours[0][1]
        return views != {"gone"} and claim.name.colour in ("", first_colour)

    def _is(self, claim: EventClaim, event: Event) -> bool:
        if claim.kind != event.kind or self.thing_of(claim.name) != event.thing:
            return False
        if claim.time_s is not None and abs(claim.time_s - event.start_s) > TOLERANCE_S + 1e-9:
            return False
        if claim.kind in _WITH_WAY and claim.direction != event.direction:
            return False
        if claim.other is not None and self.thing_of(claim.other) != event.other:
            return False
        return claim.colour == event.colour and claim.speed in ("", event.speed)

    def _detail(self, kind: str) -> str | None:
        """Return what a detail should say; None where that is not certain."""
        scene, witness = self.scene, self.witness
        if kind == "background":
            return scene.backdrop.kind
        if kind == "sign":
            return "" if scene.sign is None else scene.sign.text
        at_end = kind == "count at end"
        views = witness.views_at_end() if at_end else witness.views_at_start()
        if views is None or (at_end and not witness.all_clear):
            return None
        return str(views.count("whole"))
