"""Conversations as prompts: the template byte for byte, marks, and time sentences."""

import dataclasses
import json
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.errors import ConfigError
from llava_video.model.prompt import (
    TEMPLATES,
    Turn,
    place_marks,
    read_turns,
    render,
    stop_strings,
    written,
)

DIALOGUE = (Turn("user", "<image>\nQ1"), Turn("assistant", "A1"), Turn("user", "Q2"))
# Two turns in every template; § is its system sentence.
STRINGS = {
    "plain": "<image>\nQ1\nA1\nQ2\n",
    "llava_v0": "§###Human: <image>\nQ1###Assistant: A1###Human: Q2###Assistant:",
    "llava_v1": "§ USER: <image>\nQ1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:",
    "vicuna_v1": "§ USER: <image>\nQ1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:",
    "llava_llama_2": "[INST] <<SYS>>\n§\n<</SYS>>\n\n<image>\nQ1 [/INST] A1 </s>"
    "<s>[INST] Q2 [/INST]",
    "mistral_instruct": "[INST] <image>\nQ1 [/INST] A1 </s>[INST] Q2 [/INST]",
    **dict.fromkeys(
        ("chatml_direct", "mistral_direct", "mpt"),
        "<|im_start|>system\n§<|im_end|><|im_start|>user\n<image>\nQ1<|im_end|>"
        "<|im_start|>assistant\nA1<|im_end|><|im_start|>user\nQ2<|im_end|><|im_start|>assistant\n",
    ),
    **dict.fromkeys(
        ("qwen_1_5", "qwen_2", "qwen_2_5"),
        "<|im_start|>system\n§<|im_end|>\n<|im_start|>user\n<image>\nQ1<|im_end|>\n"
        "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    **dict.fromkeys(
        ("llava_llama_3", "llava_llama_3_1"),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n§<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nQ1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
}
# Meta's, of Llama 3 as it first came; LLaVA-Mini's tokenizer has it too.
LLAMA_3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)

NOTE = "The video lasts for 10.00 seconds."


def user(text: str) -> tuple[Turn, ...]:
    return (Turn("user", text),)


def placed(text: str, *sentences: str | None) -> str:
    (turn,) = place_marks(user(text), sentences)
    return turn.text


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_every_template_writes_two_turns(template: str):
    assert set(STRINGS) == set(TEMPLATES)
    expected = STRINGS[template].replace("§", TEMPLATES[template].system)
    assert render(DIALOGUE, template) == expected
    assert "".join(text for text, _ in written(DIALOGUE, template)) in render(DIALOGUE, template)
    assert [text.strip() for text, learned in written(DIALOGUE, template) if learned] == [
        "A1" + TEMPLATES[template].around_answer[1].rstrip()
    ]


def test_golden_prompts_of_the_family(shared: Path):
    golden = shared / "golden" / "family"
    cases = json.loads((golden / "cases" / "prompts.json").read_text(encoding="utf-8"))
    assert len(cases) == 12
    first = Turn("user", "<image>\nWhat is shown here?")
    more = (first, Turn("assistant", "A cat."), Turn("user", "Why?"))
    for template, case in cases.items():
        assert render([first], template) == case["one_turn"], template
        if "two_turns" in case:
            assert render(more, template) == case["two_turns"], template


def test_golden_prompts_of_mini_and_v1(shared: Path):
    cases = json.loads((shared / "golden" / "family" / "cases.json").read_text(encoding="utf-8"))
    asked = {
        "mini_image": "What is shown in the image? Answer now!",
        "mini_video": "What is in the video?",
        "mini_hd_image": "Describe the image.",
        "llava1_image": "Describe the image in detail.",
        "llava15_image": "What is shown in the image?",
    }
    for name, question in asked.items():
        case = cases[name]
        marked = place_marks(user(question), [None], has_mark_ends=name == "llava1_image")
        assert render(marked, case["conv"]) == case["prompt"], name


def test_llama_3_is_what_its_chat_template_gives(shared: Path):
    path = shared / "golden" / "family" / "llava-mini-tiny" / "tokenizer_config.json"
    assert json.loads(path.read_text(encoding="utf-8"))["chat_template"] == LLAMA_3


@given(st.lists(st.text(" \n\tabé", max_size=8), min_size=1, max_size=5))
def test_llama_3_is_that_chat_template_for_any_texts(texts: list[str]):
    texts = texts if len(texts) % 2 else texts[:-1] or ["a"]
    spoken = [Turn(("user", "assistant")[idx % 2], text) for idx, text in enumerate(texts)]
    system = Turn("system", TEMPLATES["llava_llama_3"].system)
    expected = jinja2.Template(LLAMA_3, keep_trailing_newline=True).render(
        messages=[dataclasses.asdict(turn) | {"content": turn.text} for turn in (system, *spoken)],
        bos_token="<|begin_of_text|>",
    )
    assert render(spoken, "llava_llama_3") == expected
    assert render(spoken, "llava_llama_3_1") == expected


def test_a_system_turn_stands_where_the_template_has_one():
    turns = (Turn("system", "Be brief."), Turn("user", "Why?"))
    assert render(turns, "vicuna_v1") == "Be brief. USER: Why? ASSISTANT:"
    assert render(turns, "llava_v0") == "Be brief.###Human: Why?###Assistant:"
    wrapped = "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhy? [/INST]"
    assert render(turns, "llava_llama_2") == render(turns, "mistral_instruct") == wrapped


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_an_empty_system_turn_leaves_the_system_out(template: str):
    facts = TEMPLATES[template]
    without = render((Turn("system", ""), Turn("user", "Why?")), template)
    assert without == facts.begin + "Why?".join(facts.around_user) + facts.cue


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
        render(user("x"), "xyz")
    with pytest.raises(ConfigError, match="'vicuna'") as caught:
        render(user("x"), "vicuna")
    assert "did you mean 'vicuna_v1'?" in caught.value.hint


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


def test_marks_of_v1_have_their_ends():
    turns = (Turn("user", "One?"), Turn("assistant", "Yes."), Turn("user", "Two?"))
    whole = "<im_start><image><im_end>"
    first, answer, second = place_marks(turns, [NOTE], has_mark_ends=True)
    assert first.text == f"{whole}\n{NOTE}\nOne?"
    assert (answer.text, second.text) == ("Yes.", "Two?")

    def ended(text: str, *sentences: str | None) -> str:
        (turn,) = place_marks(user(text), sentences, has_mark_ends=True)
        return turn.text

    assert ended("Why?", None, None) == f"{whole} {whole}\nWhy?"
    assert ended("Is <image> red?", None) == f"Is {whole} red?"
    # Ends that a user wrote are not written again, and a sentence goes behind them.
    assert ended(f"{whole}\nWhy?", NOTE) == f"{whole}\n{NOTE}\nWhy?"
    assert ended("Why?") == "Why?"


def test_the_templates_end_is_a_stop_string():
    assert stop_strings() == ("<|im_end|>",)
    ends = {name: stop_strings(name) for name in TEMPLATES}
    assert ends["llava_v0"] == ("###",)
    assert ends["vicuna_v1"] == ends["llava_llama_2"] == ends["mistral_instruct"] == ("</s>",)
    assert ends["mpt"] == ends["chatml_direct"] == ends["qwen_2"] == ("<|im_end|>",)
    assert ends["llava_llama_3"] == ends["llava_llama_3_1"] == ("<|eot_id|>",)
    assert ends["plain"] == ()  # a caption ends with the checkpoint's own token


def test_what_a_template_writes_itself():
    """Every string of it stands in a prompt, and nothing else but what is said."""
    for name, facts in TEMPLATES.items():
        left = render((Turn("system", "§"), *DIALOGUE), name)
        for text in sorted(facts.strings, key=len, reverse=True):
            left = left.replace(text, "")
        assert "".join(left.split()) == "§<image>Q1A1Q2", name
    tokens = {name: facts.tokens for name, facts in TEMPLATES.items()}
    assert tokens["plain"] == tokens["llava_v0"] == ()
    assert tokens["vicuna_v1"] == tokens["mistral_instruct"] == ("</s>",)
    assert tokens["llava_llama_2"] == ("<s>", "</s>")
    assert tokens["mpt"] == tokens["qwen_1_5"] == ("<|im_start|>", "<|im_end|>")
    assert tokens["llava_llama_3"][-1] == "<|eot_id|>"


CONVERSATIONS = [
    (Turn("user", "<image>\nQ1"),),
    DIALOGUE,
    (Turn("system", "Be brief.\n\nAnd kind."), *DIALOGUE),
    (*DIALOGUE, Turn("assistant", "A2\nand more"), Turn("user", "Q3")),
]


@pytest.mark.parametrize("turns", CONVERSATIONS)
@pytest.mark.parametrize("template", [name for name in TEMPLATES if name != "plain"])
def test_a_prompt_is_read_back(template: str, turns: tuple[Turn, ...]) -> None:
    read = read_turns(render(turns, template), template)
    assert [(turn.role, turn.text.strip()) for turn in read] == [
        (turn.role, turn.text) for turn in turns
    ]


def test_captions_are_read_back_as_they_can_be() -> None:
    assert read_turns(render(user("<image>"), "plain"), "plain") == user("<image>")


@pytest.mark.parametrize(
    "prompt", ["", "Hello", render(DIALOGUE, "vicuna_v1"), "<|im_start|>user\n"]
)
def test_another_templates_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(ConfigError, match="qwen_1_5"):
        read_turns(prompt, "qwen_1_5")


@settings(max_examples=30)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5).filter(lambda texts: len(texts) % 2))
def test_what_is_read_back_is_the_same_prompt(texts: list[str]) -> None:
    turns = [Turn("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    prompt = render(turns, "qwen_1_5")
    assert render(read_turns(prompt, "qwen_1_5"), "qwen_1_5") == prompt
