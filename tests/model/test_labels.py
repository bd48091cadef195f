"""Conversations as training examples: the original code's ids and labels, only answers learned."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llava_video.errors import ConfigError
from llava_video.model.labels import IGNORED, label_conversation, turns_of_sample
from llava_video.model.prompt import TEMPLATES, Turn, stop_strings
from llava_video.model.tiny import byte_tokenizer
from llava_video.model.tokenizer import MARK_ID, Tokenizer

DIALOGUE = (
    Turn("user", "<image>\nWhat?"),
    Turn("assistant", "A cat."),
    Turn("user", "Sure?"),
    Turn("assistant", "Yes."),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("labels")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


def test_the_golden_samples(shared: Path):
    golden = shared / "golden" / "family"
    rows = json.loads((golden / "cases" / "train_labels.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer(golden / "llava-v1.5-tiny")
    assert {row["template"] for row in rows} == {"vicuna_v1", "plain", "llava_llama_2"}
    for row in rows:
        made = label_conversation(turns_of_sample(row["conversations"]), tokenizer, row["template"])
        assert list(made.ids) == row["input_ids"], row["template"]
        assert list(made.labels) == row["labels"], row["template"]


def test_the_golden_batch(shared: Path):
    golden = shared / "golden" / "family"
    rows = json.loads((golden / "cases" / "train_labels.json").read_text(encoding="utf-8"))[:2]
    arrays = np.load(golden / "cases" / "llava15_train_loss.npz")
    tokenizer = Tokenizer(golden / "llava-v1.5-tiny")
    for row, ids, labels in zip(rows, arrays["input_ids"], arrays["labels"], strict=True):
        made = label_conversation(turns_of_sample(row["conversations"]), tokenizer, "vicuna_v1")
        padding = len(ids) - len(made.ids)
        assert [*made.ids, *[0] * padding] == ids.tolist()
        assert [*made.labels, *[IGNORED] * padding] == labels.tolist()


def test_the_golden_sample_of_mini(shared: Path):
    golden = shared / "golden" / "family"
    case = json.loads((golden / "cases.json").read_text(encoding="utf-8"))["mini_train"]
    arrays = np.load(golden / "cases" / "mini_train.npz")
    turns = turns_of_sample(case["conversations"])
    tokenizer = Tokenizer(golden / case["checkpoint"])
    made = label_conversation(turns, tokenizer, "llava_llama_3_1")
    assert list(made.ids) == arrays["input_ids"].tolist()
    assert list(made.labels) == arrays["labels"].tolist()
    # A prompt begins with the first token twice, the training does not.
    assert made.ids[0] != made.ids[1]


@pytest.mark.parametrize("template", sorted(set(TEMPLATES) - {"plain"}))
def test_answers_and_their_ends_are_learned_and_nothing_else(tokenizer: Tokenizer, template: str):
    made = label_conversation(DIALOGUE, tokenizer, template)
    assert len(made.ids) == len(made.labels)
    learned = [kept for kept in made.labels if kept != IGNORED]
    assert all(kept in (IGNORED, own) for own, kept in zip(made.ids, made.labels, strict=True))
    (end,) = stop_strings(template)
    opening, closing = TEMPLATES[template].around_answer
    blank = " " if opening.endswith(" ") else ""
    assert closing.endswith(end)
    written = "".join(f"{blank}{answer}{closing}" for answer in ("A cat.", "Yes."))
    assert learned == tokenizer.encode(written)
    assert made.ids.count(MARK_ID) == 1


def test_qwens_answers_by_hand(tokenizer: Tokenizer):
    made = label_conversation(DIALOGUE[:2], tokenizer, "qwen_1_5")
    answer = [*b"A cat.", 258]
    assert made.ids[-len(answer) :] == tuple(answer)
    assert made.labels == (IGNORED,) * (len(made.ids) - len(answer)) + tuple(answer)


def test_a_caption_is_learned_whole_and_its_question_is_dropped(tokenizer: Tokenizer):
    turns = [Turn("user", "Describe.\n<image>"), Turn("assistant", "A cat.")]
    made = label_conversation(turns, tokenizer, "plain")
    assert made.ids == (MARK_ID, *b"A cat.\n")
    assert made.labels == (IGNORED, *b"A cat.\n")


def test_a_caption_alone_is_no_conversation(tokenizer: Tokenizer):
    """The original code stops at anything but a pair: of more, all but the last would be lost."""
    for turns in (DIALOGUE, DIALOGUE[1:2], (Turn("system", "Hi."), *DIALOGUE[:2])):
        with pytest.raises(ConfigError, match="'plain' is one caption's") as caught:
            label_conversation(turns, tokenizer, "plain")
        assert caught.value.hint == "one question and its answer; make an example of each pair."


def test_marks_have_their_ends(tokenizer: Tokenizer):
    made = label_conversation(DIALOGUE, tokenizer, "llava_v1", has_mark_ends=True)
    at = made.ids.index(MARK_ID)
    assert bytes(made.ids[at - 10 : at]) == b"<im_start>"
    assert bytes(made.ids[at + 1 : at + 9]) == b"<im_end>"


def test_an_answer_that_quotes_a_mark_stays_text(tokenizer: Tokenizer):
    turns = [*DIALOGUE[:3], Turn("assistant", "See <image>.")]
    made = label_conversation(turns, tokenizer, "vicuna_v1")
    assert made.ids.count(MARK_ID) == 1
    assert bytes(made.labels[-len(b" See < image >.</s>") :]) == b" See < image >.</s>"


@pytest.mark.parametrize("turns", [(), DIALOGUE[:1], DIALOGUE[:3], DIALOGUE[1:]])
def test_conversations_that_teach_nothing_are_refused(tokenizer: Tokenizer, turns: Any):
    with pytest.raises(ConfigError):
        label_conversation(turns, tokenizer, "vicuna_v1")


def sample(*messages: str) -> list[dict[str, str]]:
    speakers = ("human", "gpt")
    return [{"from": speakers[idx % 2], "value": text} for idx, text in enumerate(messages)]


def test_samples_become_turns():
    assert turns_of_sample(sample("One?", "Yes.")) == (
        Turn("user", "One?"),
        Turn("assistant", "Yes."),
    )
    begun = [{"from": "system", "value": "Hi."}, {"from": "gpt", "value": "Ho."}]
    assert turns_of_sample([*begun, *sample("One?")]) == (Turn("user", "One?"),)


@pytest.mark.parametrize(
    ("text", "placed"),
    [
        ("What?\n<image>", "<image>\nWhat?"),
        ("<image>\nWhat?", "<image>\nWhat?"),
        ("<image>What?", "<image>\nWhat?"),
        ("Is <image> red?", "<image>\nIs  red?"),
        ("<image>", "<image>"),
        ("<image> or <image>?", "<image> or <image>?"),
        ("What?", "What?"),
    ],
)
def test_the_one_mark_of_a_text_goes_to_its_front(text: str, placed: str):
    assert turns_of_sample(sample(text)) == (Turn("user", placed),)
    assert turns_of_sample(sample("One?", text))[1].text == text  # an answer stays as it is


@pytest.mark.parametrize(
    "messages",
    [
        [*sample("One?"), {"from": "bot", "value": "Yes."}],
        [{"from": "human", "value": None}],
        [*sample("One?"), {"value": "Yes."}],
        ["x"],
        [*sample("One?"), None],
    ],
)
def test_samples_of_another_form_are_refused(messages: Any):
    with pytest.raises(ConfigError, match="says") as caught:
        turns_of_sample(messages)
    assert "'human' and 'gpt'" in caught.value.hint
