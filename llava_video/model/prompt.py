"""A conversation → the prompt text with one `<image>` mark per visual, in a template.

The strings are what the checkpoints were trained with, byte for byte. Knows no token and no visual:
a video is one mark, whatever its length. Special tokens in a user's text stay as they are written
(so the reference); `Tokenizer.special_tokens_in` finds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from llava_video.errors import ConfigError
from llava_video.model.tokenizer import IMAGE_MARK

Role = Literal["system", "user", "assistant"]
TemplateName = Literal["qwen_1_5", "qwen_2_5"]

DEFAULT_TEMPLATE: Final[TemplateName] = "qwen_1_5"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: who speaks.
        text: what is said; `<image>` in a user's text is the place of a visual.
    """

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """How turns become one text.

    Attributes:
        system: the system sentence used when the conversation brings none.
        start: opens a turn; the role and a line feed follow.
        end: ends a turn's text, and is what the model writes at the end of an answer.
    """

    system: str
    start: str = "<|im_start|>"
    end: str = "<|im_end|>"


TEMPLATES: Final[dict[TemplateName, Template]] = {
    "qwen_1_5": Template(system="You are a helpful assistant."),
    "qwen_2_5": Template(
        system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    ),
}


def render(turns: Sequence[Turn], template: TemplateName = DEFAULT_TEMPLATE) -> str:
    r"""Write a conversation as the prompt of its next answer.

    Args:
        turns: an optional system turn, then user and assistant in alternation, a user's turn last.
        template: the checkpoint's template.

    Returns:
        `<|im_start|>system\n…<|im_end|>\n<|im_start|>user\n…<|im_end|>\n<|im_start|>assistant\n`.

    Raises:
        ConfigError: the turns are in another order, or the template is unknown.
    """
    if template not in TEMPLATES:
        raise ConfigError(f"template = {template!r}.", f"allowed: {', '.join(TEMPLATES)}.")
    parts = TEMPLATES[template]
    has_system = bool(turns) and turns[0].role == "system"
    spoken = turns[1:] if has_system else turns
    _check_order(spoken)
    first = turns[0] if has_system else Turn("system", parts.system)
    text = "".join(
        f"{parts.start}{turn.role}\n{_own_text(turn)}{parts.end}\n" for turn in (first, *spoken)
    )
    return f"{text}{parts.start}assistant\n"


def place_marks(turns: Sequence[Turn], sentences: Sequence[str | None]) -> tuple[Turn, ...]:
    r"""Give every visual its mark, and every video its time sentence.

    Marks the user wrote stay where they are; the sentence then follows its mark on a line of its
    own. Without any mark, all marks go before the first user turn, as in training:
    `<image>\n{sentence}\n{question}` for a video, `<image> <image>\n{question}` for pictures.

    Args:
        turns: the conversation.
        sentences: one entry per visual, in order: its time sentence, or None for none.

    Returns:
        The conversation with exactly one mark per visual.

    Raises:
        ConfigError: the user wrote marks, but not one per visual; or there is no user turn.
    """
    num_marks = sum(turn.text.count(IMAGE_MARK) for turn in turns if turn.role == "user")
    if num_marks not in (0, len(sentences)):
        raise ConfigError(
            f"the prompt has {num_marks} {IMAGE_MARK} marks for {len(sentences)} visuals.",
            f"write one {IMAGE_MARK} per visual where it belongs, or none.",
        )
    if num_marks:
        return _after_marks(turns, sentences)
    users = [idx for idx, turn in enumerate(turns) if turn.role == "user"]
    if not users:
        raise ConfigError("the conversation has no user turn.", "add Turn('user', question).")
    placed = list(turns)
    first = placed[users[0]]
    placed[users[0]] = replace(first, text=_before_question(sentences) + first.text)
    return tuple(placed)


def stop_strings(template: TemplateName = DEFAULT_TEMPLATE) -> tuple[str, ...]:
    """Return the tokens that end an answer in this template, beside the checkpoint's EOS ids."""
    return (TEMPLATES[template].end,)


def _before_question(sentences: Sequence[str | None]) -> str:
    text = ""
    for idx, sentence in enumerate(sentences):
        is_last = idx == len(sentences) - 1
        text += IMAGE_MARK
        text += f"\n{sentence}\n" if sentence else "\n" if is_last else " "
    return text


def _after_marks(turns: Sequence[Turn], sentences: Sequence[str | None]) -> tuple[Turn, ...]:
    left = iter(sentences)
    placed = []
    for turn in turns:
        if turn.role != "user":
            placed.append(turn)
            continue
        before, *rest = turn.text.split(IMAGE_MARK)
        text = before
        for after in rest:
            sentence = next(left)
            line_feed = "" if after.startswith("\n") else "\n"
            text += IMAGE_MARK + (f"\n{sentence}{line_feed}" if sentence else "") + after
        placed.append(replace(turn, text=text))
    return tuple(placed)


def _own_text(turn: Turn) -> str:
    # An answer that quotes the mark must not claim a visual: only users place marks.
    return turn.text if turn.role == "user" else turn.text.replace(IMAGE_MARK, "< image >")


def _check_order(spoken: Sequence[Turn]) -> None:
    expected = ["user" if idx % 2 == 0 else "assistant" for idx in range(len(spoken))]
    found = [turn.role for turn in spoken]
    if not spoken or found != expected or found[-1] != "user":
        raise ConfigError(
            f"the conversation's roles are {found}.",
            "after an optional system turn: user, assistant, user, …, a user's turn last.",
        )
