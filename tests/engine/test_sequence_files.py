"""Sequences saved to a file and read back: the same tokens, bit for bit, or refused."""

import json
import struct

import pytest
import torch
from marked_sequences import FORMATS, filled, make_arena, read, write
from safetensors import safe_open
from seeded_models import TEXT, model_of

from llava_video.engine.arena import Arena
from llava_video.engine.sequence import (
    Sequence,
    VisualRun,
    load_facts,
    load_sequence,
    save_facts,
)
from llava_video.engine.step import Work, run_step
from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.kv_file import write_metadata

VIDEO = VisualRun("video", 7)


@pytest.fixture(params=FORMATS)
def kv_format(request):
    return request.param


def bits_of(arena, sequence):
    """Return everything that is stored of a sequence, layer by layer, as bytes."""
    bits = []
    for layer_idx in range(arena.num_layers):
        spans = [arena.stored(layer_idx, span) for span in sequence.past]
        for part in ("k", "v", "k_scales", "v_scales"):
            pieces = [getattr(span, part) for span in spans]
            if pieces[0] is not None:
                bits.append(torch.cat(pieces).view(torch.uint8).flatten())
    return torch.cat(bits)


def test_a_saved_sequence_is_read_back_bit_for_bit(kv_format, tmp_path):
    path = tmp_path / "kept.safetensors"
    arena = make_arena()
    sequence = filled(arena, [1, 2, VIDEO, 3], kv_format=kv_format, position_scale=2.5)
    sequence.reserve(4)  # a piece of its own
    filled(arena, [9] * 5, kv_format=kv_format)
    write(arena, sequence, [4, 5, 6])
    sequence.drop_oldest(2, num_sinks=1)
    sequence.save(path, model="tiny", asked="why \u00e9?")
    other = make_arena()
    filled(other, [7] * 9, kv_format=kv_format)
    loaded, facts = load_sequence(other, path)
    assert facts == {"model": "tiny", "asked": "why \u00e9?"}
    assert torch.equal(bits_of(other, loaded), bits_of(arena, sequence))
    assert read(other, loaded) == read(arena, sequence)
    assert loaded.elements == sequence.elements == (1, 3, 4, 5, 6)
    assert (loaded.num_tokens, loaded.next_idx) == (sequence.num_tokens, sequence.next_idx)
    assert (loaded.position_scale, loaded.kv_format) == (2.5, kv_format)
    # It goes on as the other would: positions, sinks and sharing are known.
    loaded.reserve(2)
    write(other, loaded, [8])
    assert read(other, loaded)[-1] == (8, sequence.next_idx)
    with pytest.raises(ConfigError, match="num_sinks"):
        loaded.drop_oldest(1, num_sinks=2)
    loaded.release()
    assert other.used_tokens == 9


def generated(model, arena, sequence, token_id, num_tokens):
    """Continue greedily; return the logits of every step."""
    logits = []
    for _ in range(num_tokens):
        sequence.reserve(1)
        hidden = model.embed(torch.tensor([token_id]))
        logits.append(
            run_step(model, arena, [Work(sequence=sequence, hidden=hidden, num_logits=1)])
        )
        sequence.append(1, completes=(token_id,))
        token_id = int(logits[-1].argmax())
    return torch.cat(logits)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_loaded_sequence_continues_bit_for_bit(kv_format, dtype, tmp_path):
    model = model_of(TEXT).to(dtype)
    ids = [3, 14, 15, 9, 26, 5, 35, 8]

    def new_arena():
        text = model.config
        sizes = (text.num_layers, text.num_kv_heads, text.head_dim)
        return Arena(*sizes, dtype=dtype, devices=model.devices, slab_tokens=64)

    arena = new_arena()
    sequence = Sequence(arena, position_scale=1.5, kv_format=kv_format)
    sequence.reserve(len(ids))
    run_step(
        model, arena, [Work(sequence=sequence, hidden=model.embed(torch.tensor(ids)), num_logits=1)]
    )
    sequence.append(len(ids), completes=ids)
    sequence.save(tmp_path / "kept.safetensors")
    uninterrupted = generated(model, arena, sequence, 7, 6)
    other = new_arena()
    loaded, _ = load_sequence(other, tmp_path / "kept.safetensors")
    assert torch.equal(generated(model, other, loaded, 7, 6), uninterrupted)
    # The mutant: a bit of every byte of one key.
    loaded, _ = load_sequence(other, tmp_path / "kept.safetensors")
    keys = other.stored(0, loaded.past[0]).k
    keys.view(torch.uint8)[2] ^= 64
    assert not torch.equal(generated(model, other, loaded, 7, 6), uninterrupted)


def test_what_cannot_be_saved_is_refused(tmp_path):
    arena = make_arena()
    for sequence in (Sequence(arena), filled(arena, [1])):
        if sequence.num_tokens:
            sequence.reserve(3)
            sequence.append(2)  # of a visual that is not complete
        with pytest.raises(ConfigError, match="whole elements"):
            sequence.save(tmp_path / "kept.safetensors")
    whole = filled(arena, [1, 2])
    with pytest.raises(CheckpointError, match="cannot be written"):
        whole.save(tmp_path / "absent" / "kept.safetensors")
    whole.release()
    with pytest.raises(ConfigError, match="released"):
        whole.save(tmp_path / "kept.safetensors")
    assert list(tmp_path.iterdir()) == []


def with_metadata(path, **changes):
    """Rewrite a file's header with other metadata."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] |= changes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.parametrize(
    "changes",
    [
        {"elements": [1, 2]},
        {"elements": [1, 2, 3.0]},
        {"elements": [1, 2, -3]},
        {"elements": [1, 2, ["a", 1, 2]]},
        {"elements": [1, 2, ["a", True]]},
        {"position_scale": 0},
        {"position_scale": "1"},
        {"sink_tokens": None},
        {"dropped_tokens": -1},
    ],
)
def test_a_file_that_does_not_say_what_it_holds_is_refused(tmp_path, changes):
    path, arena = tmp_path / "kept.safetensors", make_arena()
    filled(arena, [1, 2, 3]).save(path)
    with safe_open(path, framework="np") as file:
        described = json.loads(file.metadata()["sequence"])
    for sequence in (json.dumps(described | changes), "[]", "{", ""):
        with_metadata(path, sequence=sequence)
        with pytest.raises(CheckpointError, match="does not say what its tokens are"):
            load_sequence(arena, path)
    with_metadata(path, sequence=json.dumps(described), facts="[]")
    with pytest.raises(CheckpointError, match="does not say"):
        load_sequence(arena, path)
    with_metadata(path, facts="{}")
    load_sequence(arena, path)
    assert arena.used_tokens == 6


def test_facts_are_saved_alone(tmp_path):
    path, arena = tmp_path / "facts.safetensors", make_arena()
    save_facts(path, asked="why \u00e9?")
    assert load_facts(path) == {"asked": "why \u00e9?"}
    with pytest.raises(CheckpointError, match="no saved cache"):
        load_sequence(arena, path)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_facts(tmp_path / "none" / "facts.safetensors")
    filled(arena, [1, 2, 3]).save(path, asked="why?")
    assert load_facts(path) is None
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_facts(path)
    for facts in ("[]", "{", ""):
        write_metadata(path, {"facts": facts})
        with pytest.raises(CheckpointError, match="says nothing"):
            load_facts(path)
    write_metadata(path, {})
    with pytest.raises(CheckpointError, match="says nothing"):
        load_facts(path)
