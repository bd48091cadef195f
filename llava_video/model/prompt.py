"""A conversation → the prompt text with one `<image>` mark per visual, in a template.

The strings are what the checkpoints were trained with, byte for byte. Knows no token and no visual:
a video is one mark, whatever its length. Special tokens in a user's text stay as they are written
(so the reference); `Tokenizer.special_tokens_in` finds them.

A template is a few facts, in the four shapes of the family: spoken (LLaVA v0, v1, Vicuna), [INST]
(LLaMA-2, Mistral), ChatML (Qwen, Yi, MPT) and Llama 3; "plain" is a caption's, of the first stage.
Llama 3's form is written here as well. The original code renders it by the chat template of a
tokenizer, and Mini's always ends with an answer's header; that gives these same strings. The
template that a checkpoint brings is not run: it is a program of strangers without a bound on its
time, and it could move the marks or the end that the plan and the engine count on.
"""

import difflib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from llava_video.errors import ConfigError
from llava_video.model.tokenizer import IMAGE_MARK

Role = Literal["system", "user", "assistant"]

DEFAULT_TEMPLATE: Final = "qwen_1_5"

# What stands around every visual of a checkpoint with `mm_use_im_start_end`.
MARK_ENDS: Final = ("<im_start>", "<im_end>")

_TOKEN = re.compile(r"<\|\w+\|>|</?s>")

_CURIOUS = (
    "A chat between a curious {0} and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the {0}'s questions."
)
_VISION = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)


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
    """How turns become one text. Each pair is what stands before and behind what is said.

    Attributes:
        system: the system sentence used when the conversation brings none; "" for no system.
        around_system: of the system sentence; an empty one is left out with it.
        around_user: of a user's text.
        around_answer: of an answer. The end is what the model writes when it has answered; blanks
            at the end of the opening are the model's to write as well.
        begin: opens the text.
        between: stands before every user's turn but the first.
        is_system_in_turn: whether the system sentence opens the first user's text.
        is_trimmed: whether texts lose the white space at their ends.
        always_opens: whether an answer's opening ends the text even where nothing is asked.
    """

    system: str = ""
    around_system: tuple[str, str] = ("", "")
    around_user: tuple[str, str]
    around_answer: tuple[str, str]
    begin: str = ""
    between: str = ""
    is_system_in_turn: bool = False
    is_trimmed: bool = False
    always_opens: bool = False

    @property
    def cue(self) -> str:
        """What the prompt of an answer ends with."""
        return self.around_answer[0].rstrip(" ")

    @property
    def strings(self) -> tuple[str, ...]:
        """What the template itself writes, without white space at the ends."""
        pairs = (self.around_system, self.around_user, self.around_answer)
        own = (self.begin, self.between, *itertools.chain.from_iterable(pairs))
        return tuple(dict.fromkeys(text.strip() for text in own if text.strip()))

    @property
    def tokens(self) -> tuple[str, ...]:
        """Which of these are written as tokens: `<|im_end|>` and `</s>`, not ### or [INST]."""
        found = (_TOKEN.findall(text) for text in self.strings)
        return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))


_PLAIN = Template(around_system=("", "\n"), around_user=("", "\n"), around_answer=("", "\n"))
_VICUNA = Template(
    system=_CURIOUS.format("user"),
    around_system=("", " "),
    around_user=("USER: ", " "),
    around_answer=("ASSISTANT: ", "</s>"),
)
_V0 = Template(
    system=_CURIOUS.format("human"),
    around_system=("", "###"),
    around_user=("Human: ", "###"),
    around_answer=("Assistant: ", "###"),
)
_MISTRAL = Template(
    around_system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
    around_user=("[INST] ", " [/INST]"),
    around_answer=(" ", " </s>"),
    is_system_in_turn=True,
)
_QWEN = Template(
    system="You are a helpful assistant.",
    around_system=("<|im_start|>system\n", "<|im_end|>\n"),
    around_user=("<|im_start|>user\n", "<|im_end|>\n"),
    around_answer=("<|im_start|>assistant\n", "<|im_end|>"),
    between="\n",
)
_CHATML = replace(
    _QWEN,
    system="Answer the questions.",
    around_system=("<|im_start|>system\n", "<|im_end|>"),
    around_user=("<|im_start|>user\n", "<|im_end|>"),
    between="",
)
_LLAMA_3 = Template(
    system=_VISION,
    around_system=("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
    around_user=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    around_answer=("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    begin="<|begin_of_text|>",
    is_trimmed=True,
)

TEMPLATES: Final[dict[str, Template]] = {
    "plain": _PLAIN,
    "llava_v0": _V0,
    "llava_v1": replace(_VICUNA, system=_CURIOUS.format("human")),
    "vicuna_v1": _VICUNA,
    "llava_llama_2": replace(_MISTRAL, system=_VISION, between="<s>"),
    "mistral_instruct": _MISTRAL,
    "chatml_direct": _CHATML,
    "mistral_direct": _CHATML,
    "mpt": replace(
        _CHATML,
        system="A conversation between a user and an LLM-based AI assistant. "
        "The assistant gives helpful and honest answers.",
    ),
    "qwen_1_5": _QWEN,
    "qwen_2": _QWEN,
    "qwen_2_5": replace(
        _QWEN, system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    ),
    "llava_llama_3": _LLAMA_3,
    "llava_llama_3_1": replace(_LLAMA_3, always_opens=True),
}


def template_of(name: str) -> Template:
    """Return a template by its name.

    Raises:
        ConfigError: there is none of this name; the nearest one is named.
    """
    if name not in TEMPLATES:
        near = difflib.get_close_matches(name, TEMPLATES, n=1)
        nearest = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"template = {name!r}.", f"{nearest}allowed: {', '.join(TEMPLATES)}.")
    return TEMPLATES[name]


def render(turns: Sequence[Turn], template: str = DEFAULT_TEMPLATE) -> str:
    r"""Write a conversation as the prompt of its next answer.

    A system turn replaces the template's own sentence; one with an empty text leaves the system
    out. Where the template has no sentence of its own (Mistral), it goes where LLaMA-2's stands.

    Args:
        turns: an optional system turn, then user and assistant in alternation, a user's turn last.
        template: the checkpoint's template.

    Returns:
        `<|im_start|>system\n…<|im_end|>\n<|im_start|>user\n…<|im_end|>\n<|im_start|>assistant\n`.

    Raises:
        ConfigError: the turns are in another order, or the template is unknown.
    """
    if turns and turns[-1].role != "user":
        raise _wrong_order(turns)
    pieces = written(turns, template)
    return "".join(text for text, _ in pieces) + template_of(template).cue


def written(turns: Sequence[Turn], template: str) -> list[tuple[str, bool]]:
    """Write a conversation piece by piece, none of them open at its end.

    Args:
        turns: an optional system turn, then user and assistant in alternation.
        template: its template.

    Returns:
        (text, whether it is an answer: what a model writes, its end included).

    Raises:
        ConfigError: as `render`.
    """
    facts = template_of(template)
    has_system = bool(turns) and turns[0].role == "system"
    spoken = turns[1:] if has_system else turns
    expected = ["user" if idx % 2 == 0 else "assistant" for idx in range(len(spoken))]
    if not spoken or [turn.role for turn in spoken] != expected:
        raise _wrong_order(turns)
    system = _own_text(turns[0], facts) if has_system else facts.system
    block = system.join(facts.around_system) if system else ""
    is_inside = facts.is_system_in_turn
    pieces = [(facts.begin + ("" if is_inside else block), False)]
    for idx, turn in enumerate(spoken):
        text = _own_text(turn, facts)
        if turn.role == "user":
            opening, end = facts.around_user
            lead = facts.between if idx else ""
            inside = block if is_inside and not idx else ""
            pieces.append((f"{lead}{opening}{inside}{text}{end}", False))
        else:
            opening, end = facts.around_answer
            pieces.append((facts.cue, False))
            pieces.append((f"{opening.removeprefix(facts.cue)}{text}{end}", True))
    return pieces


def read_turns(prompt: str, template: str) -> tuple[Turn, ...]:
    """Read a conversation back from the prompt that `render` wrote of it.

    Where a text quotes the template's own strings, the turns are those that a model would see.

    Raises:
        ConfigError: the prompt is not one of the template's.
    """
    facts = template_of(template)
    opening, closing = facts.around_user
    rest, turns = prompt.removeprefix(facts.begin), []
    to_system, from_system = facts.around_system
    if facts.is_system_in_turn:
        found = re.match(
            f"{re.escape(opening + to_system)}(.*?){re.escape(from_system)}", rest, re.S
        )
        rest = opening + rest[found.end() :] if found else rest
    else:
        begin = re.escape(from_system + opening)
        found = re.match(f"{re.escape(to_system)}(.*?){begin}", rest, re.S)
        found = None if rest.startswith(opening) else found
        rest = opening + rest[found.end() :] if found else rest
    if found and found[1] != facts.system:
        turns.append(Turn("system", found[1]))
    while rest.startswith(opening) and closing + facts.cue in rest:
        text, _, rest = rest.removeprefix(opening).partition(closing + facts.cue)
        turns.append(Turn("user", text))
        if not rest:
            break
        answer, end, rest = rest.partition(facts.around_answer[1] + facts.between + opening)
        said = answer.removeprefix(facts.around_answer[0].removeprefix(facts.cue))
        turns.append(Turn("assistant", said))
        rest = opening + rest if end else ""
    if not turns or turns[-1].role != "user" or render(turns, template) != prompt:
        raise ConfigError(
            f"the plan's prompt is not one of the template {template!r}.",
            "make the plan with this model, or ask through LlavaVideo's verbs.",
        )
    return tuple(turns)


def place_marks(
    turns: Sequence[Turn], sentences: Sequence[str | None], *, has_mark_ends: bool = False
) -> tuple[Turn, ...]:
    r"""Give every visual its mark, and every video its time sentence.

    Marks the user wrote stay where they are; the sentence then follows its mark on a line of its
    own. Without any mark, all marks go before the first user turn, as in training:
    `<image>\n{sentence}\n{question}` for a video, `<image> <image>\n{question}` for pictures.

    Args:
        turns: the conversation.
        sentences: one entry per visual, in order: its time sentence, or None for none.
        has_mark_ends: whether a mark is written `<im_start><image><im_end>`.

    Returns:
        The conversation with exactly one mark per visual.

    Raises:
        ConfigError: the user wrote marks, but not one per visual; or there is no user turn.
    """
    if has_mark_ends:
        ended = IMAGE_MARK.join(MARK_ENDS)
        bare = _of_users(turns, ended, IMAGE_MARK)
        return _of_users(place_marks(bare, sentences), IMAGE_MARK, ended)
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


def stop_strings(template: str = DEFAULT_TEMPLATE) -> tuple[str, ...]:
    """Return what ends an answer in this template, beside the checkpoint's EOS ids."""
    end = template_of(template).around_answer[1].strip()
    return (end,) if end else ()


def _of_users(turns: Sequence[Turn], old: str, new: str) -> tuple[Turn, ...]:
    return tuple(
        replace(turn, text=turn.text.replace(old, new)) if turn.role == "user" else turn
        for turn in turns
    )


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


def _own_text(turn: Turn, facts: Template) -> str:
    # An answer that quotes the mark must not claim a visual: only users place marks.
    text = turn.text if turn.role == "user" else turn.text.replace(IMAGE_MARK, "< image >")
    return text.strip() if facts.is_trimmed else text


def _wrong_order(turns: Sequence[Turn]) -> ConfigError:
    return ConfigError(
        f"the conversation's roles are {[turn.role for turn in turns]}.",
        "after an optional system turn: user, assistant, user, …; to be answered, a user's last.",
    )
