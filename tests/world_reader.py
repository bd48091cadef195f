"""Frames of the small world and a question's words → the answer, read from the pixels alone."""

import itertools
import math
import re
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from world_blobs import HUES, Blob, Life, find_blobs, follow

from llava_video.world.font import write_text
from llava_video.world.vocabulary import SIGN_WORDS

_SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
_WAYS = (
    "right", "down right", "down", "down left", "left", "up left", "up", "up right",
)  # fmt: skip
_VERBS = {
    "enter": "enters?", "leave": "leaves?", "move": "moves?", "stop": "stops?", "grow": "grows?",
    "shrink": "shrinks?", "recolour": "changes? colour", "hide": "hides? behind the wall",
    "return": "comes? back from behind the wall", "collide": "hits? another object",
}  # fmt: skip


class Reader:
    """Somebody who looks at all frames and is asked questions.

    Args:
        frames: (T, H, W, 3) uint8.
        rate_hz: frames per second.
        shake_px: how far the camera may be off; a step of twice that is no motion.
    """

    def __init__(self, frames: np.ndarray, rate_hz: float, shake_px: int = 0) -> None:
        self.frames, self.rate_hz = frames, rate_hz
        self.unit = min(frames.shape[1:3])
        self.least_px = 2.5 + 2 * shake_px
        self._known: dict[int, dict[str, float]] = {}

    @cached_property
    def lives(self) -> list[Life]:
        return follow(self.frames)

    def answer(self, kind: str, text: str) -> str:
        """Answer a question of a kind."""
        return getattr(self, f"_{kind}")(text)

    # What an object did ---------------------------------------------------------------------

    def _is_large(self, blob: Blob) -> bool:
        return max(blob.width, blob.height) > 0.24 * self.unit

    def _runs(self, life: Life) -> list[tuple[int, int]]:
        """Return (first, last) frame of each stretch in which an object moves."""
        frames = sorted(life.blobs)
        # A turn of the camera moves it once; a real motion goes on in the next frames.
        step = max(1, round(0.75 * self.rate_hz))
        moving = []
        for k in frames:
            near = [j for j in frames if abs(j - k) <= step]
            before, after = life.blobs[near[0]], life.blobs[near[-1]]
            far = math.hypot(after.x - before.x, after.y - before.y)
            # Growing changes both sides; going behind the wall, sideways, the width alone.
            is_rigid = abs(after.height - before.height) < 3 or before.edges or after.edges
            moving.append((k, far > self.least_px and bool(is_rigid)))
        runs: list[tuple[int, int]] = []
        for k, is_moving in moving:
            if is_moving and runs and k - runs[-1][1] <= 1:
                runs[-1] = (runs[-1][0], k)
            elif is_moving:
                runs.append((k, k))
        # The window sees a motion half a window before it begins and after it ends.
        last = frames[-1]
        return [
            (a + step - 1 if a else 0, b if b == last else max(a, b - step + 1)) for a, b in runs
        ]

    def _whens(self, life: Life) -> dict[str, float]:
        """Return kind of event → when it begins, s."""
        if id(life) not in self._known:
            self._known[id(life)] = self._find_whens(life)
        return self._known[id(life)]

    def _find_whens(self, life: Life) -> dict[str, float]:
        whens: dict[str, float] = {}
        runs, end = self._runs(life), len(self.frames) - 1
        if life.first > 0 and life.blobs[life.first].edges:
            whens["enter"] = life.first
            runs = [run for run in runs if run[0] > life.first + 1]
        if life.last < end and life.blobs[life.last].edges:
            outs = [run for run in runs if run[1] >= life.last - 1.5 * self.rate_hz]
            whens["leave"] = outs[-1][0]
            runs = [run for run in runs if run != outs[-1]]
        frames = sorted(life.blobs)
        gap = next(((a, b) for a, b in itertools.pairwise(frames) if b > a + 1), None)
        if gap is not None:
            starts = [run[0] for run in runs if run[0] <= gap[0] + self.rate_hz]
            whens["hide"] = min(starts[-1], gap[0])
            whens["return"] = gap[1]
            runs = [run for run in runs if run[1] < whens["hide"] or run[0] > gap[1] + self.rate_hz]
        if runs:
            whens["move"] = runs[0][0]
            stops = [run[1] for run in runs if run[1] < end - 0.5 * self.rate_hz]
            if stops:
                whens["stop"] = stops[0]
        whens |= self._looks(life)
        return {kind: k / self.rate_hz for kind, k in whens.items()}

    def _looks(self, life: Life) -> dict[str, int]:
        found: dict[str, int] = {}
        whole = life.whole()
        visible = [k for k in whole if not self._is_beside_gap(life, k)] or whole[::63]
        first, last = life.blobs[visible[0]], life.blobs[visible[-1]]
        if self._is_large(first) != self._is_large(last):
            found["grow" if self._is_large(last) else "shrink"] = next(
                k for k in whole if abs(life.blobs[k].height - first.height) >= 2
            )
        if len(life.colours) > 1:
            new = life.colours[-1]
            found["recolour"] = next(k for k in sorted(life.blobs) if life.blobs[k].colour == new)
        return found

    def _is_beside_gap(self, life: Life, k: int) -> bool:
        """Say whether an object is about to vanish behind the wall, or just came out."""
        step = round(2 * self.rate_hz)
        end = len(self.frames) - 1
        near = range(max(life.first, k - step), min(end, life.last, k + step) + 1)
        return any(j not in life.blobs for j in near)

    def _hit_by(self, life: Life) -> tuple[Life, float] | None:
        """Return what an object ran into and when: what begins to move where this one stops."""
        mine = self._whens(life)
        for other in self.lives:
            theirs = self._whens(other)
            if other is life or "stop" not in mine or "move" not in theirs:
                continue
            k = round(mine["stop"] * self.rate_hz)
            if abs(theirs["move"] - mine["stop"]) > 0.8 or k not in other.blobs:
                continue
            a, b = life.blobs[k], other.blobs[k]
            far_x = abs(a.x - b.x) - (a.width + b.width) / 2
            far_y = abs(a.y - b.y) - (a.height + b.height) / 2
            if max(far_x, far_y) < self.least_px + 4 and theirs["move"] > mine["move"] + 0.3:
                return other, mine["stop"]
        return None

    def _kinds(self, life: Life) -> dict[str, float]:
        hit = self._hit_by(life)
        return self._whens(life) if hit is None else self._whens(life) | {"collide": hit[1]}

    # Words ----------------------------------------------------------------------------------

    def _named(self, text: str) -> list[Life]:
        """Return the objects a text names, in the order of their names; "" colours do not count."""
        pattern = rf"\b(?:({'|'.join(HUES)}) )?({'|'.join(_SHAPES)})\b"
        found = []
        for colour, shape in re.findall(pattern, text):
            ours = [
                life
                for life in self.lives
                if life.shape == shape and (not colour or colour in life.colours)
            ]
            assert len(ours) <= 1, (text, colour, shape)
            found += ours
        return found

    def _name(self, life: Life) -> str:
        return life.shape if len(life.colours) > 1 else f"{life.colours[0]} {life.shape}"

    @staticmethod
    def _verb(text: str) -> str:
        return next(kind for kind, verb in _VERBS.items() if re.search(rf"\b{verb}\b", text))

    @staticmethod
    def _said(is_so: bool) -> str:
        return "yes" if is_so else "no"

    # Kinds of questions ---------------------------------------------------------------------

    def _shape(self, text: str) -> str:
        colour = next(name for name in HUES if name in text)
        return next(life.shape for life in self.lives if colour in life.colours)

    def _colour(self, text: str) -> str:
        colours = self._named(text)[0].colours
        return colours[-1] if re.search("now|turn", text) else colours[0]

    def _size(self, text: str) -> str:
        life = self._named(text.replace("small", "").replace("large", ""))[0]
        return "large" if self._is_large(life.blobs[life.whole()[0]]) else "small"

    def _place(self, text: str) -> str:
        life = self._named(text)[0]
        blob = life.blobs[0 if "start" in text else len(self.frames) - 1]
        row = int(blob.y / self.frames.shape[1] * 3)
        column = int(blob.x / self.frames.shape[2] * 3)
        words = (("top", "", "bottom")[row], ("left", "", "right")[column])
        return " ".join(word for word in words if word) or "centre"

    def _count(self, text: str) -> str:
        return str(len(self.lives))

    def _count_alike(self, text: str) -> str:
        word = text.split()[2]
        word = "cross" if word == "crosses" else word.removesuffix("s")
        return str(sum(word == life.shape or word in life.colours for life in self.lives))

    def _count_now(self, text: str) -> str:
        return str(len(find_blobs(self.frames[-1])))

    def _direction(self, text: str) -> str:
        life = self._named(text)[0]
        first, last = life.blobs[life.whole()[0]], life.blobs[life.whole()[-1]]
        angle = math.atan2(last.y - first.y, last.x - first.x)
        return _WAYS[round(angle / (math.pi / 4)) % 8]

    def _side(self, text: str) -> str:
        life = self._named(text)[0]
        (side,) = life.blobs[life.first if "enter" in text else life.last].edges
        return side

    def _which(self, text: str) -> str:
        kind = self._verb(text)
        (doer,) = [life for life in self.lives if kind in self._kinds(life)]
        return self._name(doer)

    def _hits(self, text: str) -> str:
        hit = self._hit_by(self._named(text)[0])
        assert hit is not None, text
        return self._name(hit[0])

    def _action(self, text: str) -> str:
        kinds = self._kinds(self._named(text)[0])
        words = {
            "enter": "enters", "leave": "leaves", "hide": "hides", "move": "moves",
            "grow": "grows", "shrink": "shrinks", "recolour": "changes colour",
        }  # fmt: skip
        return next((word for kind, word in words.items() if kind in kinds), "nothing")

    def _order(self, text: str) -> str:
        return self._name(min(self._named(text), key=lambda life: min(self._kinds(life).values())))

    def _before(self, text: str) -> str:
        early, late = text.split(" before ", 1) if " before the " in text else ("", "")
        whens = []
        for part in (early, late):
            life = self._named(part)[0]
            whens.append(self._kinds(life)[self._verb(part)])
        return self._said(whens[0] < whens[1])

    def _when(self, text: str) -> str:
        return f"{self._kinds(self._named(text)[0])[self._verb(text)]} s"

    def _is_there(self, text: str) -> str:
        return self._said(bool(self._named(text)))

    def _is_there_now(self, text: str) -> str:
        end = len(self.frames) - 1
        named = [life for life in self._named(text) if end in life.blobs]
        return self._said(bool(named) and named[0].blobs[end].colour in text)

    def _does(self, text: str) -> str:
        return self._said(self._verb(text) in self._kinds(self._named(text)[0]))

    def _did_change(self, text: str) -> str:
        kinds = self._kinds(self._named(text)[0])
        wanted = {"recolour"} if "colour" in text else {"grow", "shrink"}
        return self._said(bool(wanted & set(kinds)))

    def _did_number(self, text: str) -> str:
        first, last = (len(find_blobs(self.frames[k])) for k in (0, -1))
        is_so = {
            "change": first != last,
            "more": last > first,
            "fewer": last < first,
            "as many": first == last,
        }
        return self._said(next(so for words, so in is_so.items() if words in text))

    def _did_anything(self, text: str) -> str:
        return self._said(any(self._kinds(life) for life in self.lives))

    def _moves_to(self, text: str) -> str:
        return self._said(text.split(" move ")[1].rstrip("?") == self._direction(text))

    def _beside(self, text: str) -> str:
        one, other = (life.blobs[len(self.frames) - 1] for life in self._named(text))
        away = {
            "left of": other.x - one.x,
            "right of": one.x - other.x,
            "above": other.y - one.y,
            "below": one.y - other.y,
        }
        return self._said(next(px > 0 for words, px in away.items() if words in text))

    # The sign -------------------------------------------------------------------------------

    @cached_property
    def _sign_read(self) -> tuple[float, str]:
        """Return how well the best word of the vocabulary fits somewhere, 0 to 1, and the word."""
        third = self.frames.shape[1] // 3
        bands = np.concatenate([self.frames[0, :third], self.frames[0, -third:]])
        grey = bands.astype(np.float32).mean(axis=2)
        levels = np.where(grey < 100, -1.0, np.where(grey > 180, 1.0, 0.0)).astype(np.float32)
        scale = max(1, self.unit // 48)
        best = (0.0, "")
        for word in SIGN_WORDS:
            ink = np.pad(write_text(word, scale), scale).astype(np.float32)
            windows = sliding_window_view(levels, ink.shape)
            windows = windows.reshape(-1, ink.size)
            # Blank paper would fit a short word's surroundings: ink and paper count alike.
            of_ink = windows @ -ink.ravel() / ink.sum()
            of_paper = windows @ (1 - ink).ravel() / (1 - ink).sum()
            best = max(best, (float(np.minimum(of_ink, of_paper).max()), word))
        return best

    def _is_sign(self, text: str) -> str:
        return self._said(self._sign_read[0] > 0.9)

    def _sign(self, text: str) -> str:
        return self._sign_read[1]

    def _sign_says(self, text: str) -> str:
        return self._said(text.split(" say ")[1].rstrip("?") == self._sign_read[1])
