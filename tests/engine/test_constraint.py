import json

import jsonschema
import pytest
import torch

from llava_video.engine.constraint import ConstraintCompiler
from llava_video.errors import ConfigError

SCHEMAS = [
    {"type": "boolean"},
    {"type": "integer", "minimum": -5, "maximum": 99},
    {"enum": ["red", "dark blue", 3, None]},
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "count": {"type": "integer", "minimum": 0, "maximum": 20},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
            "inner": {"anyOf": [{"type": "null"}, {"const": "x"}]},
        },
        "required": ["name", "count", "tags", "inner"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "maxItems": 2},
]


@pytest.fixture
def compiler(tiny):
    return ConstraintCompiler(
        tiny.tokenizer.to_json,
        tiny.model.language_model.config.vocab_size,
        tiny.generation.eos_ids,
    )


def random_walk(constraint, eos_ids, seed, most=300):
    """Choose allowed tokens at random until the answer ends."""
    generator = torch.Generator().manual_seed(seed)
    ids = []
    while not constraint.is_complete:
        allowed = constraint.allowed(torch.device("cpu"))
        choices = allowed.nonzero()[:, 0]
        token_id = int(choices[torch.randint(len(choices), (1,), generator=generator)])
        if token_id in eos_ids:
            constraint.end()
        else:
            ids.append(token_id)
            constraint.push(token_id)
        assert len(ids) < most
    return ids


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: str(schema)[:30])
def test_any_allowed_tokens_give_a_valid_answer(tiny, compiler, schema):
    texts = set()
    for seed in range(8):
        ids = random_walk(compiler.compile(schema), tiny.generation.eos_ids, seed)
        texts.add(tiny.tokenizer.decode(ids))
    for text in texts:
        jsonschema.validate(json.loads(text), schema)
        assert "\n" not in text
    assert len(texts) > 1


def test_an_end_is_allowed_only_where_the_answer_is_valid(tiny, compiler):
    eos_ids = list(tiny.generation.eos_ids)
    constraint = compiler.compile({"type": "integer"})
    assert not constraint.allowed(torch.device("cpu"))[eos_ids].any()
    constraint.push(ord("4"))
    assert not constraint.is_complete
    assert constraint.allowed(torch.device("cpu"))[eos_ids].all()
    constraint.end()
    assert constraint.is_complete


def test_ids_beyond_the_tokenizer_are_never_allowed(tiny, compiler):
    allowed = compiler.compile({"type": "string"}).allowed(torch.device("cpu"))
    assert allowed.shape == (tiny.model.language_model.config.vocab_size,)
    assert not allowed[tiny.tokenizer.num_ids :].any()


def test_a_token_that_is_not_allowed_is_refused(compiler):
    with pytest.raises(ConfigError, match="gave up"):
        compiler.compile({"type": "integer"}).push(ord("x"))


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "foo"}, "foo"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "cannot be followed"),
        ({"enum": {1, 2}}, "no JSON"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(compiler, schema, named):
    with pytest.raises(ConfigError, match=named):
        compiler.compile(schema)


def test_the_vocabulary_is_read_once(tiny):
    calls = []

    def to_json():
        calls.append(1)
        return tiny.tokenizer.to_json()

    compiler = ConstraintCompiler(to_json, 320, ())
    compiler.compile({"type": "boolean"})
    compiler.compile({"type": "integer"})
    assert len(calls) == 1
