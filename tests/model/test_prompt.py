"""Conversations as prompts: the template byte for byte, marks, and time sentences."""

import pytest

from llava_video.errors import ConfigError
from llava_video.model.prompt import TEMPLATES, Turn, place_marks, render, stop_strings

NOTE = "The video lasts for 10.00 seconds."


def user(text: str) -> tuple[Turn, ...]:
    return (Turn("user", text),)


def placed(text: str, *sentences: str | None) -> str:
    (turn,) = place_marks(user(text), sentences)
    return turn.text


def test_one_turn():
    assert render(user("<image>\nWhy?")) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<image>\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_several_turns_and_a_system_turn():
    turns = [
        Turn("system", "Be brief."),
        Turn("user", "One?"),
        Turn("assistant", "Yes."),
        Turn("user", "Two?"),
    ]
    assert render(turns) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
        "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_qwen_2_5_differs_in_the_system_sentence_only():
    older, newer = render(user("Why?")), render(user("Why?"), "qwen_2_5")
    assert newer == older.replace(TEMPLATES["qwen_1_5"].system, TEMPLATES["qwen_2_5"].system)
    assert "created by Alibaba Cloud. You are a helpful assistant." in newer


@pytest.mark.parametrize(
    "roles",
    [[], ["system"], ["assistant"], ["user", "user"], ["user", "assistant"], ["user", "system"]],
)
def test_turns_in_another_order_are_refused(roles: list[str]):
    with pytest.raises(ConfigError, match="user, assistant, user"):
        render([Turn(role, "x") for role in roles])  # type: ignore[arg-type]  # any role


def test_an_unknown_template_is_refused():
    with pytest.raises(ConfigError, match="qwen_1_5"):
        render(user("x"), "vicuna")  # type: ignore[arg-type]  # what is tested


def test_marks_go_in_front_when_the_user_writes_none():
    assert placed("Why?") == "Why?"
    assert placed("Why?", None) == "<image>\nWhy?"
    assert placed("Why?", None, None) == "<image> <image>\nWhy?"
    assert placed("Why?", NOTE) == f"<image>\n{NOTE}\nWhy?"  # as in training, byte for byte
    assert placed("Why?", NOTE, NOTE) == f"<image>\n{NOTE}\n<image>\n{NOTE}\nWhy?"
    assert placed("Why?", None, NOTE) == f"<image> <image>\n{NOTE}\nWhy?"
    assert placed("Why?", NOTE, None) == f"<image>\n{NOTE}\n<image>\nWhy?"


def test_marks_of_the_user_stay_where_they_are():
    assert placed("Compare <image> with <image>.", None, None) == "Compare <image> with <image>."
    assert placed("<image>\nWhy?", NOTE) == f"<image>\n{NOTE}\nWhy?"
    assert placed("First <image>, then?", NOTE) == f"First <image>\n{NOTE}\n, then?"
    assert placed("<image>", NOTE) == f"<image>\n{NOTE}\n"


def test_marks_count_over_the_whole_conversation():
    turns = (Turn("user", "<image>\nOne?"), Turn("assistant", "Yes."), Turn("user", "<image> Two?"))
    first, answer, second = place_marks(turns, [NOTE, None])
    assert first.text == f"<image>\n{NOTE}\nOne?"
    assert answer.text == "Yes."
    assert second.text == "<image> Two?"


def test_without_marks_the_first_user_turn_has_them():
    turns = (
        Turn("system", "Be brief."),
        Turn("user", "One?"),
        Turn("assistant", "Yes."),
        Turn("user", "Two?"),
    )
    texts = [turn.text for turn in place_marks(turns, [None])]
    assert texts == ["Be brief.", "<image>\nOne?", "Yes.", "Two?"]


@pytest.mark.parametrize(
    ("text", "num_visuals"), [("<image> a <image>", 1), ("<image>", 2), ("<image>", 0)]
)
def test_marks_that_do_not_match_the_visuals_are_refused(text: str, num_visuals: int):
    with pytest.raises(ConfigError, match=f"for {num_visuals} visuals") as caught:
        place_marks(user(text), [None] * num_visuals)
    assert "one <image> per visual" in caught.value.hint


def test_a_conversation_without_a_user_turn_is_refused():
    with pytest.raises(ConfigError, match="no user turn"):
        place_marks((Turn("system", "x"),), [None])


def test_an_answer_that_quotes_the_mark_claims_no_visual():
    turns = (Turn("user", "What?"), Turn("assistant", "I saw <image>."), Turn("user", "Where?"))
    text = render(place_marks(turns, [None]))
    assert text.count("<image>") == 1
    assert "I saw < image >." in text


def test_the_templates_end_is_a_stop_string():
    assert stop_strings() == ("<|im_end|>",)
