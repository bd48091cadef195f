"""The loss of heads that are told where to look, by another formula."""

import math

import pytest
import torch
from seeded_models import TEXT, model_of

from llava_video.ops.rope import rotate_reference
from llava_video.train.packing import Share, packed_keys
from llava_video.train.pointer import Pointer
from llava_video.train.pointing import PointingKeys, heads_fit

SHARES = (Share(0, 20, tails=(12, 16)), Share(20, 34, tails=(28,)))
POINTERS = (
    [
        Pointer(14, "name", ((3, 5),)),
        Pointer(18, "answer", ((2,), (7, 8, 9))),
    ],
    [Pointer(33, "name", ((21, 22),))],
)
CPU = torch.device("cpu")


@pytest.fixture
def qkv() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = (TEXT.num_heads, TEXT.num_kv_heads, TEXT.num_kv_heads)
    return tuple(torch.randn(34, num, TEXT.head_dim, generator=generator) for num in heads)


def pointing(name_heads=(), answer_heads=()) -> PointingKeys:
    heads = {"name": name_heads, "answer": answer_heads}
    return PointingKeys(packed_keys(SHARES, TEXT, device=CPU), POINTERS, heads)


def attention_of(qkv, head: int, row: int, seen: list[int]) -> dict[int, float]:
    """Return the softmax of one query over the rows it sees, by hand."""
    keys = packed_keys(SHARES, TEXT, device=CPU)
    q, k = (rotate_reference(x, keys.cos, keys.sin).double() for x in qkv[:2])
    kv_head = head // (TEXT.num_heads // TEXT.num_kv_heads)
    scores = {at: math.exp(q[row, head] @ k[at, kv_head] / TEXT.head_dim**0.5) for at in seen}
    return {at: score / sum(scores.values()) for at, score in scores.items()}


def test_the_loss_is_the_formula(qkv):
    last = TEXT.num_heads - 1
    keys = pointing(name_heads=((1, 0), (1, last)), answer_heads=((0, 1),))
    assert keys.loss() is None
    out = keys.attend(*qkv, None, 1, "sdpa")
    assert torch.equal(out, packed_keys(SHARES, TEXT, device=CPU).attend(*qkv, None, 1, "sdpa"))
    expected = []
    for row, seen, shown in (
        (14, [*range(12), 12, 13, 14], (3, 5)),
        (33, range(20, 34), (21, 22)),
    ):
        for head in (0, last):
            p = attention_of(qkv, head, row, [*seen])
            expected.append(-math.log(sum(p[at] for at in shown)))
    assert keys.loss().item() == pytest.approx(sum(expected) / 4, abs=1e-5)
    # Of an answer about two things each is to have its share; the other tail is not seen.
    answers = pointing(answer_heads=((0, 1),))
    answers.attend(*qkv, None, 1, "sdpa")
    assert answers.loss() is None
    answers.attend(*qkv, None, 0, "sdpa")
    p = attention_of(qkv, 1, 18, [*range(12), 16, 17, 18])
    wanted = -(math.log(p[2]) + math.log(p[7] + p[8] + p[9])) / 2
    assert answers.loss().item() == pytest.approx(wanted, abs=1e-5)
    unmasked = attention_of(qkv, 1, 18, [*range(19)])
    other_tail = (math.log(unmasked[2]) + math.log(sum(unmasked[at] for at in (7, 8, 9)))) / 2
    assert abs(wanted + other_tail) > 1e-2
    assert abs(wanted + math.log(p[2] + p[7] + p[8] + p[9])) > 1e-2  # all at once is another loss


def test_a_row_of_the_visual_sees_what_is_before_it(qkv):
    trails = [[Pointer(9, "trail", ((4,),))], [Pointer(25, "trail", ((21,), (23,)))]]
    keys = PointingKeys(packed_keys(SHARES, TEXT, device=CPU), trails, {"trail": ((0, 1),)})
    keys.attend(*qkv, None, 0, "sdpa")
    first = attention_of(qkv, 1, 9, [*range(10)])
    second = attention_of(qkv, 1, 25, [*range(20, 26)])
    expected = [-math.log(first[4]), -(math.log(second[21]) + math.log(second[23])) / 2]
    assert keys.loss().item() == pytest.approx(sum(expected) / 2, abs=1e-5)
    # What comes later in its beginning is not seen.
    ahead = attention_of(qkv, 1, 9, [*range(12)])
    assert abs(first[4] - ahead[4]) > 1e-3


def test_it_teaches_the_heads_that_are_told_and_no_other(qkv):
    q, k, v = (x.clone().requires_grad_() for x in qkv)
    keys = pointing(name_heads=((0, 1),))
    keys.attend(q, k, v, None, 0, "sdpa")
    keys.loss().backward()
    assert q.grad[:, 1].abs().sum(dim=1).nonzero()[:, 0].tolist() == [14, 33]
    assert not q.grad[:, 0].any()
    assert v.grad is None


def test_a_few_steps_of_it_turn_the_attention():
    torch.manual_seed(0)
    model = model_of(TEXT)
    rows = torch.randn(34, TEXT.hidden_size)
    heads = ((0, 0), (TEXT.num_layers - 1, 1))
    learned = [p.requires_grad_() for layer in model.layers for p in layer.q_proj.parameters()]
    optimizer = torch.optim.Adam(learned, lr=0.05)
    losses = []
    for _ in range(30):
        keys = pointing(name_heads=heads, answer_heads=heads)
        model.run(rows, keys, None)
        losses.append(keys.loss().item())
        optimizer.zero_grad()
        keys.loss().backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 3


def test_a_layer_that_is_computed_again_tells_nothing_new(qkv):
    keys = pointing(name_heads=((0, 0), (0, 1)))
    keys.attend(*qkv, None, 0, "sdpa")
    told, kept = keys.loss(), dict(keys.losses)
    keys.attend(*(2 * x for x in qkv), None, 0, "sdpa")
    assert torch.equal(keys.loss(), told)
    assert all(keys.losses[one] is loss for one, loss in kept.items())


def test_it_is_computed_exactly_where_products_are_not(qkv):
    keys, rounded = pointing(name_heads=((0, 0),)), pointing(name_heads=((0, 0),))
    keys.attend(*qkv, None, 0, "sdpa")
    with torch.autocast("cpu", torch.bfloat16):
        rounded.attend(*qkv, None, 0, "sdpa")
    assert rounded.loss().item() == keys.loss().item()


def test_on_another_device_losses_are_kept_in_one_place(qkv):
    keys = pointing(name_heads=((0, 0), (1, 0)))
    keys.attend(*qkv, None, 0, "sdpa")
    keys.to(CPU).attend(*qkv, None, 1, "sdpa")
    assert sum(loss.numel() for loss in keys.losses.values()) == 4


def test_heads_are_those_of_the_decoder():
    last = (TEXT.num_layers - 1, TEXT.num_heads - 1)
    assert heads_fit([(0, 0), last], TEXT)
    for layer, head in ((last[0] + 1, 0), (0, last[1] + 1), (-1, 0), (0, -1)):
        assert not heads_fit([(0, 0), (layer, head)], TEXT)
