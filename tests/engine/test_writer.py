import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.engine.constraint import ConstraintCompiler
from llava_video.engine.settings import GenerationSettings
from llava_video.engine.writer import AnswerWriter

EOS = 258


@pytest.fixture
def write(tiny):
    """Return a function that feeds ids as if the model had chosen them."""

    def run(ids, *, schema=None, **options):
        constraint = None
        if schema is not None:
            compiler = ConstraintCompiler(tiny.tokenizer.to_json, 320, [EOS])
            constraint = compiler.compile(schema)
        generation = GenerationSettings(**{"max_new_tokens": 500, **options})
        writer = AnswerWriter(
            generation, tiny.tokenizer, eos_ids=[EOS], repetition_penalty=1.0, constraint=constraint
        )
        pieces = []
        for token_id in ids:
            assert writer.finish_reason is None, "the writer went on after its end"
            logits = torch.zeros(320)
            logits[token_id] = 10.0
            pieces.append(writer.write(logits))
            if writer.finish_reason:
                break
        return writer, pieces

    return run


def writer_of(tiny, constraint=None, **options):
    return AnswerWriter(
        GenerationSettings(**options),
        tiny.tokenizer,
        eos_ids=[EOS],
        repetition_penalty=1.2,
        constraint=constraint,
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_chosen_elsewhere_are_written_like_its_own(tiny, temperature):
    """Two tokens in a row are chosen elsewhere, then the writer goes on by itself."""
    options = {"temperature": temperature, "seed": 3, "stop": ("zz",), "max_new_tokens": 12}
    own, other = writer_of(tiny, **options), writer_of(tiny, **options)
    pieces = []
    for idx in range(12):
        logits = torch.randn(320, generator=torch.Generator().manual_seed(idx))
        logits[EOS] = -9.0
        pieces.append(own.write(logits))
        again = other.write_chosen(own.ids[-1]) if idx % 3 else other.write(logits)
        assert again == pieces[-1]
    assert (other.ids, other.text, other.finish_reason) == (own.ids, own.text, "length")


def test_only_an_answer_without_a_schema_is_free(tiny):
    constraint = ConstraintCompiler(tiny.tokenizer.to_json, 320, [EOS]).compile({"type": "integer"})
    assert writer_of(tiny).is_free
    assert not writer_of(tiny, constraint).is_free


def encoded(text):
    return list(text.encode())


def test_an_end_token_ends_the_answer_and_is_no_part_of_it(write):
    writer, _ = write([*encoded("Yes."), EOS])
    assert (writer.text, writer.finish_reason) == ("Yes.", "stop")
    assert writer.ids == encoded("Yes.")


def test_the_length_ends_the_answer(write):
    writer, _ = write(encoded("abcdef"), max_new_tokens=4)
    assert (writer.text, writer.finish_reason) == ("abcd", "length")
    assert writer.warnings == ()


def test_text_is_stripped_as_the_reference_strips_it(write):
    writer, pieces = write([*encoded(" \n Yes, a dog. \n"), EOS])
    assert writer.text == "Yes, a dog."
    assert "".join(pieces) == writer.text


def test_a_stop_string_over_token_borders_is_left_out(write):
    writer, pieces = write(encoded("A cat. Q: more"), stop=(" Q:", "zzz"))
    assert (writer.text, writer.finish_reason) == ("A cat.", "stop")
    assert "Q" not in "".join(pieces)
    assert bytes(writer.ids).decode() == "A cat. Q:"


def test_a_loop_ends_the_answer_and_says_so(write):
    writer, _ = write(encoded("It is a dog. " * 40))
    assert writer.finish_reason == "loop"
    assert "repeated" in writer.warnings[0]
    assert len(writer.ids) == 64  # a period of 13 tokens, the least length of a loop
    writer, _ = write(encoded("It is a dog. " * 38), loop_guard=False)
    assert writer.finish_reason is None


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1, max_size=12), st.integers(0, 30))
def test_no_piece_ends_in_half_a_character(tiny, text, cut):
    """Ids are bytes: every character but ASCII is spread over several of them."""
    ids = encoded(text)[: cut or None]
    generation = GenerationSettings(max_new_tokens=len(ids) or 1, loop_guard=False)
    writer = AnswerWriter(generation, tiny.tokenizer, eos_ids=[EOS], repetition_penalty=1.0)
    pieces = []
    for token_id in ids:
        logits = torch.zeros(320)
        logits[token_id] = 1.0
        pieces.append(writer.write(logits))
    assert writer.text == tiny.tokenizer.decode(ids).strip()
    assert "".join(pieces) == writer.text
    # Only the very end may say that a character is unfinished, as the reference's decoding does.
    assert all("\ufffd" not in piece for piece in pieces[:-1]) or "\ufffd" in text


def test_a_typed_answer_is_parsed(write):
    writer, _ = write(encoded('{"n": 12}'), schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False})  # fmt: skip # noqa: E501
    assert (writer.finish_reason, writer.parsed) == ("stop", {"n": 12})
    assert writer.warnings == ()


@pytest.mark.parametrize(
    ("ids", "options"),
    [
        (encoded('{"n": 12'), {"max_new_tokens": 8}),
        (encoded('{"n": 12}'), {"stop": ("12",)}),
        (encoded('{"n": 12}'), {"stop": ("}",)}),
    ],
)
def test_a_typed_answer_that_is_cut_is_never_parsed(write, ids, options):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    writer, _ = write(ids, schema=schema, **options)
    assert writer.finish_reason in ("length", "stop")
    assert writer.parsed is None
    assert "not complete" in writer.warnings[-1]


def test_a_number_that_could_go_on_is_not_complete(write):
    writer, _ = write(encoded("12"), schema={"type": "integer"}, max_new_tokens=2)
    assert (writer.finish_reason, writer.parsed) == ("length", None)
    writer, _ = write([*encoded("12"), EOS], schema={"type": "integer"})
    assert (writer.finish_reason, writer.parsed) == ("stop", 12)


def test_a_choice_is_written_whole(tiny):
    generation = GenerationSettings(response_format=["maybe so", "no"])
    writer = AnswerWriter(generation, tiny.tokenizer, eos_ids=[EOS], repetition_penalty=1.0)
    assert writer.write_choice("maybe so", encoded("maybe so")) == writer.text == "maybe so"
    assert (writer.parsed, writer.finish_reason) == ("maybe so", "stop")


def test_a_cancelled_answer_keeps_what_was_said(tiny):
    generation = GenerationSettings()
    writer = AnswerWriter(generation, tiny.tokenizer, eos_ids=[EOS], repetition_penalty=1.0)
    for token_id in encoded("A dog "):
        logits = torch.zeros(320)
        logits[token_id] = 1.0
        writer.write(logits)
    assert writer.end("cancelled") == ""
    assert (writer.text, writer.finish_reason) == ("A dog", "cancelled")
