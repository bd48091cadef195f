import pytest
import torch

from llava_video.engine.constraint import ConstraintCompiler
from llava_video.engine.prefixes import KeptPrefixes
from llava_video.engine.settings import GenerationSettings
from llava_video.engine.tools import Tools
from llava_video.model.kept_rows import KeptRows


@pytest.fixture
def make_tools(tiny, arena_of):
    text = tiny.model.language_model.config
    arena = arena_of(slab_tokens=64)

    def make(**changes):
        return Tools(
            model=tiny.model,
            tokenizer=tiny.tokenizer,
            eos_ids=frozenset({258}),
            repetition_penalty=1.0,
            constraints=ConstraintCompiler(tiny.tokenizer.to_json, text.vocab_size, ()),
            tile_chunk=2,
            arena=arena,
            prefixes=KeptPrefixes(0),
            **changes,
        )

    return make


def test_the_rows_of_several_prompts_come_from_one_store(make_tools, video):
    kept = KeptRows(2**20)
    for num_found, idxs in ((0, [1, 2]), (1, [2, 3]), (3, [1, 3])):
        mine = make_tools(kept_rows=kept).rows_of([video(idxs)]).take(12)
        plain = make_tools().rows_of([video(idxs)]).take(12)
        assert torch.allclose(mine, plain, rtol=0, atol=1e-5)
        assert kept.num_found == num_found
    assert kept.num_made == 3


def test_a_writer_is_held_to_its_schema_and_ends_at_the_checkpoints_ids(make_tools):
    tools = make_tools()
    logits = torch.zeros(tools.model.language_model.config.vocab_size)
    logits[258] = 10.0
    free = tools.writer_of(GenerationSettings())
    free.write(logits)
    assert free.finish_reason == "stop"
    typed = tools.writer_of(GenerationSettings(response_format={"type": "integer"}))
    typed.write(logits)  # no whole number is written yet
    assert typed.finish_reason is None
    assert not typed.is_free
