"""What a stage draws from the small world, and what is asked of its cells beside the answers."""

import difflib
from dataclasses import dataclass

from llava_video.config import check, setting
from llava_video.errors import ConfigError
from llava_video.train.pointer import ROLES, Role
from llava_video.world.question import ANSWERS
from llava_video.world.settings import WorldSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSource:
    """Clips of the small world, drawn while they are needed instead of read from files."""

    split: str = setting("train", "whose clips; without `settings` also what they are like")
    settings: WorldSettings | None = setting(None, "what clips are like instead")
    clips: int = setting(100_000, "clips of an epoch; the next epoch has others", at_least=1)
    seed: int = setting(0, "another one gives other clips", at_least=0)
    questions: int = setting(12, "most questions of a clip", at_least=0)
    rounds: int = setting(
        1,
        "how often each kind is asked, of what is drawn anew; `questions` is still the most",
        at_least=1,
    )
    captions: int = setting(1, "captions of a clip, of the three styles", at_least=0, at_most=3)
    chat_share: float = setting(
        0.0, "share of clips whose questions come in turn, as one chat", at_least=0, at_most=1
    )
    seldom: tuple[str, ...] = setting(
        (), "kinds of which one in eight of their questions is asked: what is easy is learned soon"
    )
    growing: int = setting(
        0, "so many first clips have few objects, from one on, and all the others any", at_least=0
    )
    plain_share: float = setting(
        0.2, "share of clips that do not look as if they came out of a file", at_least=0, at_most=1
    )

    def __post_init__(self) -> None:
        """Check every field, and that there are such kinds of questions."""
        check(self)
        for kind in self.seldom:
            if kind not in ANSWERS:
                near = difflib.get_close_matches(kind, ANSWERS, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(ANSWERS)}."
                raise ConfigError(f"seldom names a kind of question {kind!r}.", hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSettings:
    """Auxiliary losses on visual rows (`train/dense.py`), and what each loss counts."""

    patches: float = setting(0.0, "of what covers a patch, on the tower's own features", at_least=0)
    looks: float = setting(1.0, "of what a cell shows, on rows that enter the decoder", at_least=0)
    story: float = setting(
        1.0, "of where, when and what happened, on rows that leave it or `story_layer`", at_least=0
    )
    story_layer: int | None = setting(
        None,
        "layer, from 0, behind which the story is read; null: behind the last and its norm",
        at_least=0,
    )
    pointers: float = setting(
        0.0, "of where heads look, a mean over all heads and all rows that look", at_least=0
    )
    name_heads: tuple[tuple[int, int], ...] = setting(
        (), "(layer, head), both from 0, that look from the last word of a name"
    )
    answer_heads: tuple[tuple[int, int], ...] = setting(
        (), "those that look from where an answer begins, at all that is named"
    )
    first_heads: tuple[tuple[int, int], ...] = setting((), "the same, at what is named first")
    second_heads: tuple[tuple[int, int], ...] = setting(
        (), "the same, at what is named second, or at the only thing"
    )
    trail_heads: tuple[tuple[int, int], ...] = setting(
        (), "those that look from a row of the video at where what it shows was before"
    )
    moments: bool = setting(
        False, "answers look only at when it matters: 'now' at its last, at a deed while it is"
    )
    captions: bool = setting(
        False, "what an answer's heads do, they do all along a caption, at what it tells of"
    )
    answers: float = setting(
        1.0, "of the answers; with 0 for this and `story` the decoder is not run", at_least=0
    )

    @property
    def heads(self) -> dict[Role, tuple[tuple[int, int], ...]]:
        """The heads that are told where to look, by the role of what tells them."""
        return {role: getattr(self, f"{role}_heads") for role in ROLES}

    def __post_init__(self) -> None:
        """Check every field."""
        check(self)
        if not self.patches + self.looks + self.story + self.answers:
            raise ConfigError("no loss counts.", "raise patches, looks, story or answers above 0.")
        if self.story_layer is not None and not self.story:
            raise ConfigError(
                f"story_layer = {self.story_layer}, and story = 0.", "raise story, or leave it out."
            )
        if bool(self.pointers) != any(self.heads.values()):
            told = {f"{role}_heads": list(heads) for role, heads in self.heads.items() if heads}
            raise ConfigError(
                f"pointers = {self.pointers:g}, and heads that point: {told or 'none'}.",
                "heads and a weight above 0, or neither.",
            )
        answering = self.answer_heads or self.first_heads or self.second_heads
        for name in ("moments", "captions"):
            if getattr(self, name) and not answering:
                raise ConfigError(
                    f"{name}: true, and among the pointers no heads of answers.",
                    "name answer_heads, first_heads or second_heads too.",
                )
        if self.pointers and not self.story + self.answers:
            raise ConfigError(
                "pointers count, and the decoder is not run.", "raise story or answers above 0."
            )
