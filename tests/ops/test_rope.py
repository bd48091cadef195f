"""Rotation and cache write: the formula, torch's way and the kernel's, formats, and wrong ways."""

import math

import pytest
import torch
from kernels import error_of, interpreted
from kv_cases import FORMATS, seeded
from rope_cases import (
    CPU,
    DEVICE,
    SCALES,
    arguments,
    run_kernel,
    some_heads,
    some_rotation,
    some_slots,
    use_kernel,
    wide,
    zero_store,
)

from llava_video.ops import rope as module
from llava_video.ops.kv_format import StoredKv
from llava_video.ops.rope import rotate_and_store, rotate_reference
from llava_video.ops.rotation import Rotation, make_rotation
from llava_video.values import KvFormat


@pytest.fixture
def by_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernel(monkeypatch)


def by_formula(x: torch.Tensor, positions: list[float], theta: float) -> torch.Tensor:
    """Rotate in Python's own floats, one pair at a time."""
    y = x.double().clone()
    half = x.shape[2] // 2
    for i, position in enumerate(positions):
        for head in range(x.shape[1]):
            for j in range(half):
                angle = position * theta ** (-2 * j / x.shape[2])
                a, b = x[i, head, j].item(), x[i, head, j + half].item()
                y[i, head, j] = a * math.cos(angle) - b * math.sin(angle)
                y[i, head, j + half] = b * math.cos(angle) + a * math.sin(angle)
    return y


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("num_heads", [1, 7])
def test_torch_gives_the_formula(num_heads: int, scale: float):
    idxs = torch.tensor([0, 1, 30])
    q, k, v = (seeded(3, heads, 16, seed=heads) for heads in (num_heads, 2, 2))
    rotation = make_rotation(idxs, (scale,), head_dim=16, theta=1e4, device=CPU)
    positions = [idx / scale for idx in idxs.tolist()]
    slots = torch.tensor([7, 0, 3])
    for inference in (True, False):
        store = zero_store(2, 16, "plain", torch.float32)
        with torch.inference_mode(inference):
            out = rotate_and_store(q.clone(), k.clone(), v, rotation, store, slots)
        assert (out - by_formula(q, positions, 1e4)).abs().max() <= 1e-6
        assert (store.k[slots] - by_formula(k, positions, 1e4)).abs().max() <= 1e-6
        assert torch.equal(store.v[slots], v)
        untouched = [slot for slot in range(40) if slot not in slots]
        assert not store.k[untouched].any()
        assert not store.v[untouched].any()


def test_scores_depend_on_distance_alone():
    q, k = seeded(1, 1, 32, seed=1), seeded(1, 1, 32, seed=2)

    def score(q_idx: int, k_idx: int) -> float:
        both = [
            rotate_reference(x, *make_rotation(
                torch.tensor([idx]), (1.0,), head_dim=32, theta=1e6, device=CPU
            ).tables())
            for x, idx in ((q, q_idx), (k, k_idx))
        ]  # fmt: skip
        return (both[0] * both[1]).sum().item()

    assert score(7, 3) == pytest.approx(score(1_000_004, 1_000_000), abs=1e-5)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_its_own_rounding_only(dtype: torch.dtype):
    shape = (5, 3, 2, 64)
    q, k, v = some_heads(shape, dtype)
    rotation, slots = some_rotation(5, 64), some_slots(5)
    store = zero_store(2, 64, "plain", dtype)
    out = rotate_and_store(q, k, v, rotation, store, slots)
    cos, sin = rotation.tables()
    assert out.dtype is dtype
    assert torch.equal(out, rotate_reference(q.float(), cos, sin).to(dtype))
    assert torch.equal(store.k[slots], rotate_reference(k.float(), cos, sin).to(dtype))


@pytest.mark.parametrize("kv_format", ["int8", "int4"])
def test_keys_are_quantised_from_what_they_are_rotated_in(kv_format: KvFormat):
    q, k, v = some_heads((5, 3, 2, 64), torch.bfloat16)
    rotation, slots = some_rotation(5, 64), some_slots(5)
    store, expected = (zero_store(2, 64, kv_format, torch.bfloat16) for _ in range(2))
    rotate_and_store(q, k, v, rotation, store, slots)
    expected.write(slots, rotate_reference(k.float(), *rotation.tables()), v)
    assert torch.equal(store.k, expected.k)
    assert torch.equal(store.k_scales, expected.k_scales)


def test_gradients_flow():
    x = seeded(2, 1, 8).requires_grad_()
    rotation = some_rotation(2, 8)
    store = zero_store(1, 8, "plain", torch.float32)
    out = rotate_and_store(x, x.detach(), x.detach(), rotation, store, torch.arange(2))
    out.square().sum().backward()
    assert torch.allclose(x.grad, 2 * x.detach(), atol=1e-5)  # a rotation keeps the length


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": torch.zeros(3, 1, 16)}, "store of 2 heads of 16"),
        ({"v": torch.zeros(2, 2, 16)}, "store of 2 heads of 16"),
        ({"q": torch.zeros(3, 4, 18)}, "store of 2 heads of 16"),
        ({"slots": torch.arange(2)}, "3 tokens, slots"),
        ({"slots": torch.arange(3, dtype=torch.int32)}, "int32"),
        ({"rotation": some_rotation(4, 16)}, "a rotation of 4 tokens"),
        ({"rotation": some_rotation(3, 18)}, "heads of 18"),
        ({"v": torch.zeros(3, 2, 16, dtype=torch.float16)}, "v torch.float16"),
        ({"slots": torch.arange(3, device="meta")}, "tensors on cpu and meta"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        rotate_and_store(*arguments(**changes))


def test_torch_takes_what_the_kernel_refuses():
    changes = wide(258)
    rotate_and_store(*arguments(**changes))
    assert changes["store"].v[:3].any()


@interpreted
@pytest.mark.usefixtures("by_kernel")
@pytest.mark.parametrize("kv_format", FORMATS)
def test_views_of_one_joined_projection(kv_format: KvFormat):
    """Queries, keys and values side by side in one tensor, with a gap; and with odd strides."""
    shape = (3, 4, 2, 16)
    given = some_heads(shape, torch.float32, DEVICE)
    expected, expected_store, *_ = run_kernel(shape, torch.float32, kv_format)
    for gap in (8, 3):
        joined = torch.zeros(3, 8 * 16 + gap, device=DEVICE)
        views = joined[:, :64], joined[:, 64:96], joined[:, 96 : 96 + 32]
        q, k, v = (view.unflatten(1, (-1, 16)) for view in views)
        for view, x in zip((q, k, v), given, strict=True):
            view.copy_(x)
        store = zero_store(2, 16, kv_format, torch.float32, DEVICE)
        rotation, slots = some_rotation(3, 16, DEVICE), some_slots(3).to(DEVICE)
        out = rotate_and_store(q, k, v, rotation, store, slots)
        assert torch.equal(out, expected)
        assert torch.equal(store.k, expected_store.k)
        assert torch.equal(store.v, expected_store.v)
        assert not joined[:, 128:].any()
        assert torch.equal(k, given[1])  # keys are rotated on their way only


@interpreted
@pytest.mark.usefixtures("by_kernel")
def test_few_programs_take_all_heads_when_tokens_are_many(monkeypatch: pytest.MonkeyPatch):
    expected, expected_store, *_ = run_kernel((3, 7, 3, 16), torch.float32, "plain")
    for enough in (1, 2):
        monkeypatch.setattr(module, "_ENOUGH_PROGRAMS", enough)
        out, store, *_ = run_kernel((3, 7, 3, 16), torch.float32, "plain")
        assert torch.equal(out, expected)
        assert torch.equal(store.k, expected_store.k)
        assert torch.equal(store.v, expected_store.v)


@interpreted
@pytest.mark.usefixtures("by_kernel")
@pytest.mark.parametrize("mode", ["exact", "compat"])
def test_the_kernel_reads_tables_where_there_are(mode):
    q, k, v = some_heads((3, 3, 1, 48), torch.float32, DEVICE)
    given = torch.arange(3) * 70_001
    rotation = make_rotation(given, (2.5,), head_dim=48, theta=1e4, device=DEVICE, mode="compat")
    if mode == "exact":
        cos, sin = some_rotation(3, 48, DEVICE).tables()
        rotation = Rotation(
            idxs=rotation.idxs, scale_idxs=rotation.scale_idxs,
            frequencies=rotation.frequencies, cos=cos, sin=sin,
        )  # fmt: skip
    store = zero_store(1, 48, "plain", torch.float32, DEVICE)
    out = rotate_and_store(q.clone(), k, v, rotation, store, torch.arange(3, device=DEVICE))
    assert error_of(out, rotate_reference(q, *rotation.tables())) <= 1e-6
    assert error_of(store.k[:3], rotate_reference(k, *rotation.tables())) <= 1e-6


@interpreted
@pytest.mark.usefixtures("by_kernel")
def test_one_part_of_a_step_is_rotated_by_its_part():
    q, k, v = some_heads((5, 2, 1, 16), torch.float32, DEVICE)
    rotation, slots = some_rotation(5, 16, DEVICE), some_slots(5).to(DEVICE)
    whole, store, *_ = run_kernel((5, 2, 1, 16), torch.float32, "int8")
    parts = zero_store(1, 16, "int8", torch.float32, DEVICE)
    outs = [
        rotate_and_store(q[a:b].clone(), k[a:b], v[a:b], rotation.part(a, b), parts, slots[a:b])
        for a, b in ((0, 2), (2, 5))
    ]
    assert torch.equal(torch.cat(outs), whole)
    assert torch.equal(parts.k, store.k)
    assert torch.equal(parts.k_scales, store.k_scales)


def gapped_store() -> StoredKv:
    whole = zero_store(4, 16, "plain", torch.float32)
    return StoredKv(whole.k[:, ::2], whole.v[:, ::2])


@interpreted
@pytest.mark.usefixtures("by_kernel")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (wide(258), "a head of 258 channels"),
        ({"q": torch.zeros(3, 4, 32)[..., ::2]}, "2 apart"),
        ({"store": gapped_store()}, "gaps inside a token"),
        ({"slots": torch.arange(6)[::2]}, "contiguous"),
    ],
)
def test_the_kernel_refuses_what_it_would_read_wrongly(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        rotate_and_store(*arguments(**changes))


@pytest.mark.gpu
@pytest.mark.parametrize("kv_format", FORMATS)
def test_a_cuda_graph_follows_its_tensors(kv_format: KvFormat):
    shape = (4, 28, 4, 128)
    given = some_heads(shape, torch.bfloat16, DEVICE)
    rotation, slots = some_rotation(4, 128, DEVICE), some_slots(4).to(DEVICE)
    q, store = given[0].clone(), zero_store(4, 128, kv_format, torch.bfloat16, DEVICE)
    rotate_and_store(q, *given[1:], rotation, store, slots)  # compiled before the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rotate_and_store(q, *given[1:], rotation, store, slots)
    other = make_rotation(
        torch.arange(4) + 7, SCALES, torch.tensor([1, 1, 0, 0]), head_dim=128, theta=1e4,
        device=DEVICE,
    )  # fmt: skip
    rotation.copy_(other)
    slots.add_(1)
    q.copy_(given[0])
    graph.replay()
    expected = zero_store(4, 128, kv_format, torch.bfloat16, DEVICE)
    out = rotate_and_store(given[0].clone(), *given[1:], other, expected, slots)
    assert torch.equal(q, out)
    assert torch.equal(store.k[slots], expected.k[slots])
    assert torch.equal(store.v[slots], expected.v[slots])
