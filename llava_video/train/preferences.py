"""A record of a preference → one example of both its answers, behind one beginning.

Source of the format: LLaVA-Hound's pairs, which LLaVA-NeXT-Video-DPO learned from: {"video" or
"image", "prompt", "chosen", "rejected"}. A conversation that ends with a question may stand in the
place of the prompt. Visuals and question are rows of the language model once; each answer sees
them and itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llava_video.errors import ConfigError
from llava_video.model.labels import IGNORED
from llava_video.model.prompt import Turn
from llava_video.model.spec import ModelSpec
from llava_video.model.tokenizer import IMAGE_MARK
from llava_video.train.examples import ExampleMaker
from llava_video.train.mixture import VIDEO_MARK, Media, Record
from llava_video.train.settings import DataSettings

_KIND = "preference"
_HINT = 'a pair is {"video" or "image", "prompt", "chosen", "rejected"}.'


class PairMaker(ExampleMaker):
    """Makes examples of preferences: two tails, the chosen answer's and the rejected one's.

    Args:
        spec: the model's facts.
        data: as of `ExampleMaker`; a pair is as long as its beginning and both answers.

    Raises:
        ConfigError: the model is not trained here, or its template is for captions alone.
    """

    def __init__(self, spec: ModelSpec, data: DataSettings) -> None:
        super().__init__(spec, data)
        if spec.config.template == "plain":
            raise ConfigError(
                f"{spec.name} has the template 'plain', which has no answers to prefer.",
                "name the template of its conversations: template: vicuna_v1, qwen_1_5, …",
            )

    def _conversations(self, record: Record) -> tuple[Sequence[Sequence[Turn]], tuple[Media, ...]]:
        """Return the conversation with the chosen and with the rejected answer."""
        chosen, rejected = pair_of(record)
        turns, media = chosen.conversation()
        return (turns, rejected.conversation()[0]), media

    def _first_learned(self, labels: Sequence[int]) -> int:
        """Return where the last answer begins; those before it are the same for both."""
        at = max(idx for idx, label in enumerate(labels) if label != IGNORED)
        while labels[at - 1] != IGNORED:
            at -= 1
        return at


def pair_of(record: Record) -> tuple[Record, Record]:
    """Return a preference as two records of conversations: with the chosen and the rejected answer.

    A prompt without marks gets one for each picture and video in front, as the original code does.

    Args:
        record: with "prompt" or "conversations" that end with a question, "chosen" and "rejected":
            texts, or messages of the "gpt".

    Raises:
        ExampleError: something is not there, an answer is empty, or both are the same.
    """
    asked = _asked(record)
    answers = [_answer(record, key) for key in ("chosen", "rejected")]
    if answers[0].strip() == answers[1].strip():
        raise record.error("has the same chosen and rejected answer", "same answers")
    chosen, rejected = (
        replace(
            record,
            values={**record.values, "conversations": [*asked, {"from": "gpt", "value": answer}]},
        )
        for answer in answers
    )
    return chosen, rejected


def _asked(record: Record) -> list[Any]:
    """Return the messages before the answer."""
    prompt, said = record.values.get("prompt"), record.values.get("conversations")
    if (prompt is None) == (said is None):
        found = "neither" if prompt is None else "both"
        raise record.error(f"has {found} of prompt and conversations", _KIND, _HINT)
    if said is not None:
        is_question = isinstance(said, list) and said and isinstance(said[-1], Mapping)
        if not is_question or said[-1].get("from") != "human":
            raise record.error("has conversations that do not end with a question", _KIND, _HINT)
        return list(said)
    if not isinstance(prompt, str):
        raise record.error(f"has prompt = {prompt!r}", _KIND, _HINT)
    if IMAGE_MARK not in prompt and VIDEO_MARK not in prompt:
        shown = (record.values.get(kind) for kind in ("image", "video"))
        num_media = sum(len(one) if isinstance(one, list) else bool(one) for one in shown)
        prompt = f"{IMAGE_MARK}\n" * num_media + prompt
    return [{"from": "human", "value": prompt}]


def _answer(record: Record, key: str) -> str:
    given = record.values.get(key)
    if isinstance(given, Mapping) and given.get("from") == "gpt":
        given = given.get("value")
    if not isinstance(given, str):
        raise record.error(f"has {key} = {given!r}", _KIND, _HINT)
    if not given.strip():
        raise record.error(f"has an empty {key} answer", "empty answer")
    return given
