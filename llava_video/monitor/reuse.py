"""Whether an earlier answer stands for a window: a pure function of what the two show and when.

Knows no pixels, only the numbers a `ChangeGate` gave the pictures, and keeps nothing itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from llava_video.monitor.scene_settings import ReuseSettings

Reason = Literal["unchanged", "off", "forced", "first", "other questions", "changed", "too old"]

_DEFAULT = ReuseSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A window that was asked about, and answered.

    Attributes:
        window_idx: its number.
        contents: what it showed, of `contents_of`.
        asked: names the questions and how they were asked; other words, another answer.
        at_s: when, on the clock that `decide` is given.
    """

    window_idx: int
    contents: tuple[int, ...]
    asked: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """The decision about a window.

    Attributes:
        reused_from: number of the window whose answer stands; None where it must be asked about.
        reason: why.
        age_s: how old the earlier answer is; 0 without one.
    """

    reused_from: int | None
    reason: Reason
    age_s: float = 0.0


def contents_of(contents: Iterable[int]) -> tuple[int, ...]:
    """Return what a window shows: its pictures' contents in order, none twice in a row.

    How many pictures show the same is no part of it, since some may have been dropped.

    >>> contents_of([3, 3, 3, 4, 3])
    (3, 4, 3)
    """
    found: list[int] = []
    for content in contents:
        if not found or found[-1] != content:
            found.append(content)
    return tuple(found)


def decide(
    earlier: Answered | None,
    contents: tuple[int, ...],
    asked: str,
    now_s: float,
    settings: ReuseSettings = _DEFAULT,
    *,
    is_forced: bool = False,
) -> Reuse:
    """Say whether the earlier answer stands for this window.

    It does where the window shows nothing but what the earlier one ended with: what moved in the
    earlier one and has come to rest is asked about once more.

    Args:
        earlier: the last window that was asked about, not one that reused an answer; None without.
        contents: of `contents_of`.
        asked: names the questions.
        now_s: the end of this window, or now; a clock that runs forwards.
        settings: whether, and for how long.
        is_forced: ask in any case.
    """
    if not settings.is_on:
        return Reuse(reused_from=None, reason="off")
    if is_forced:
        return Reuse(reused_from=None, reason="forced")
    if earlier is None:
        return Reuse(reused_from=None, reason="first")
    age_s = now_s - earlier.at_s
    if earlier.asked != asked:
        return Reuse(reused_from=None, reason="other questions", age_s=age_s)
    if earlier.contents != contents or len(contents) != 1:
        return Reuse(reused_from=None, reason="changed", age_s=age_s)
    if not 0 <= age_s < settings.max_age_s:
        return Reuse(reused_from=None, reason="too old", age_s=age_s)
    return Reuse(reused_from=earlier.window_idx, reason="unchanged", age_s=age_s)
