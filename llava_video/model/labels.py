"""A conversation → the ids a model is trained on, and which of them it learns to write.

The text is the template's, with one difference to a prompt: it ends with an answer. It is tokenised
as the original training code does, piece by piece between the marks, and a token is learned when
all its characters belong to an answer, its end (`</s>`, `<|im_end|>`, …) included. That gives the
original code's ids and labels, with these exceptions:

* it finds the answers of Vicuna by the lengths of parts that it tokenises again, and ignores a
  whole sample, with a warning, when they do not add up: here no sample is lost;
* in Qwen's template it also learns `<|im_start|>`, `<|im_end|>` and line feeds of users' turns:
  here answers only;
* in v0's template it writes "### Human: …" line by line: here the text is the prompt's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llava_video.errors import ConfigError
from llava_video.model.prompt import Role, Turn, place_marks, template_of, written
from llava_video.model.tokenizer import IMAGE_MARK, MARK_ID, Tokenizer

IGNORED: Final = -100

_MESSAGES = "messages are {'from': …, 'value': …}, texts from 'human' and 'gpt', in alternation."
_ROLES: Final[dict[str, Role]] = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True, slots=True)
class Labelled:
    """One example of training data, before it is spliced and batched.

    Attributes:
        ids: prompt and answers; -200 at every visual.
        labels: as many: the id where it is learned, else -100.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]


def turns_of_sample(conversations: Sequence[Mapping[str, Any]]) -> tuple[Turn, ...]:
    """Read the `conversations` of a LLaVA data file.

    What is not said by a human before the first question is left out. The one mark of a text goes
    to its front, on a line of its own; several stay where they are.

    Args:
        conversations: [{"from": "human", "value": "<image>…"}, {"from": "gpt", "value": …}, …].

    Raises:
        ConfigError: another speaker, no text, or no message at all.
    """
    turns: list[Turn] = []
    for one in conversations:
        if not isinstance(one, Mapping):
            raise ConfigError(f"a message says {one!r}.", _MESSAGES)
        role, text = _ROLES.get(str(one.get("from"))), one.get("value")
        if role is None and not turns:
            continue
        if role is None or not isinstance(text, str):
            raise ConfigError(f"a message from {one.get('from')!r} says {text!r}.", _MESSAGES)
        if turns or role == "user":
            turns.append(Turn(role, _mark_first(text) if role == "user" else text))
    return tuple(turns)


def label_conversation(
    turns: Sequence[Turn], tokenizer: Tokenizer, template: str, *, has_mark_ends: bool = False
) -> Labelled:
    """Turn a conversation into ids and labels.

    Args:
        turns: an optional system turn, then user and assistant in alternation, an answer last;
            `<image>` in a user's text is the place of a visual.
        tokenizer: the checkpoint's.
        template: its template; of "plain" only the marks and the caption count.
        has_mark_ends: whether a mark is written `<im_start><image><im_end>`.

    Raises:
        ConfigError: the turns are in another order, or for "plain" more than a question and its
            answer; or the template is unknown.
    """
    pieces = _pieces(turns, template, has_mark_ends)
    text = "".join(piece for piece, _ in pieces)
    is_learned = [learned for piece, learned in pieces for _ in piece]
    front = list(tokenizer.front_ids)
    ids, labels = front.copy(), [IGNORED] * len(front)
    at = 0
    for idx, between in enumerate(text.split(IMAGE_MARK)):
        if idx:
            ids.append(MARK_ID)
            labels.append(IGNORED)
        for token_id, start, stop in tokenizer.encode_spans(between):
            ids.append(token_id)
            span = is_learned[at + start : at + max(stop, start + 1)]
            labels.append(token_id if all(span) else IGNORED)
        at += len(between) + len(IMAGE_MARK)
    # A template that writes the tokenizer's first token itself has it twice in a prompt, and once
    # in training.
    num_doubled = len(front) if front and ids[len(front) : 2 * len(front)] == front else 0
    return Labelled(tuple(ids[num_doubled:]), tuple(labels[num_doubled:]))


def _pieces(turns: Sequence[Turn], template: str, has_mark_ends: bool) -> list[tuple[str, bool]]:
    """Return the text of the training in pieces, and whether each is an answer."""
    if not turns or turns[-1].role != "assistant":
        raise ConfigError("the conversation ends without an answer.", "end it with an answer.")
    num_marks = sum(turn.text.count(IMAGE_MARK) for turn in turns if turn.role == "user")
    if template == "plain":
        roles = [turn.role for turn in turns]
        if roles != ["user", "assistant"]:
            raise ConfigError(
                f"the conversation's roles are {roles}, and 'plain' is one caption's.",
                "one question and its answer; make an example of each pair.",
            )
        marks = IMAGE_MARK * num_marks
        return [(marks, False), written([Turn("user", marks), turns[-1]], template)[-1]]
    turns = place_marks(turns, [None] * num_marks, has_mark_ends=has_mark_ends)
    facts = template_of(template)
    return written(turns, template) + ([(facts.cue, False)] if facts.always_opens else [])


def _mark_first(text: str) -> str:
    if text.count(IMAGE_MARK) != 1:
        return text
    return f"{IMAGE_MARK}\n{text.replace(IMAGE_MARK, '').strip()}".strip()
