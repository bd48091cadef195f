"""Sequences whose places say what was written to them, in every format of the cache."""

import torch

from llava_video.engine.arena import Arena
from llava_video.engine.elements import tokens_of
from llava_video.engine.sequence import Sequence

FORMATS = ("plain", "int8", "int4")
HEAD_DIM = 8
TOKEN_BYTES = {"plain": 2 * 8 * 4, "int8": 2 * (8 + 2), "int4": 2 * (4 + 4)}


def make_arena(**options):
    settings = {"dtype": torch.float32, "devices": [torch.device("cpu")], "slab_tokens": 32}
    return Arena(1, 1, HEAD_DIM, **{**settings, **options})


def name_of(element):
    return hash(element) % 256


def write(arena, sequence, elements):
    """Append elements, writing into each place its element's name and its index.

    As digits of 16 beside a 0 and a 15: every format gives such numbers back.
    """
    for element in elements:
        left = tokens_of([element])
        while left:
            span = sequence.writable(left)
            first = sequence.next_idx
            idxs = torch.arange(first, first + span.num_tokens)
            name = torch.full_like(idxs, name_of(element))
            zeros = torch.zeros_like(idxs)
            numbers = (zeros, zeros + 15, name // 16, name, idxs // 256, idxs // 16, idxs, zeros)
            keys = torch.stack([number % 16 for number in numbers], dim=-1)[:, None].float()
            arena.stored(0, span).write(slice(None), keys, 15 - keys)
            left -= span.num_tokens
            sequence.append(span.num_tokens, completes=() if left else (element,))


def read(arena, sequence):
    """Return what stands in a sequence's places, in order: (name, index) pairs."""
    pairs = []
    for span in sequence.past:
        keys, values = arena.stored(0, span).plain(torch.float32)
        assert torch.equal(keys.round() + values.round(), torch.full_like(keys, 15))
        for _, _, high, low, *idx_digits, _ in keys[:, 0].round().int().tolist():
            idx = 0
            for digit in idx_digits:
                idx = 16 * idx + digit
            pairs.append((16 * high + low, idx))
    return pairs


def filled(arena, elements, *, room=0, kv_format="plain", **options):
    sequence = Sequence(arena, kv_format=kv_format, **options)
    sequence.reserve(tokens_of(elements) + room)
    write(arena, sequence, elements)
    return sequence
