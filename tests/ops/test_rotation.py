"""Phases: exact at any index and scale, the reference's own tables on request, and wrong ways."""

import math

import pytest
import torch
from exact_turns import (
    FAR,
    SCALES,
    THETAS,
    banded_turns,
    exact_tables,
    tables_of,
    turns_per_index,
)
from transformers import LlamaConfig, Qwen2Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from llava_video.ops import rotation as module
from llava_video.ops.frequency_bands import FrequencyBands
from llava_video.ops.rotation import Rotation, frequencies, make_rotation

CPU = torch.device("cpu")
LIMIT = 1e-6
LLAMA = FrequencyBands(factor=8.0, low_factor=1.0, high_factor=4.0, positions=8192)
# Where a tiny head has waves in all three bands.
NARROW = FrequencyBands(factor=2.5, low_factor=0.7, high_factor=9.3, positions=611)


def tables(rotation: Rotation) -> torch.Tensor:
    """Cosines and sines (2, L, d/2) float64."""
    return torch.stack(rotation.tables()).squeeze(2).double()


def far_rotation(**changes) -> Rotation:
    """The rotation of one token, far away, at every scale."""
    asked = {"head_dim": 128, "theta": 1e6, "device": CPU} | changes
    which = torch.arange(len(SCALES))
    return make_rotation(torch.full((len(SCALES),), FAR), SCALES, which, **asked)


def test_the_fixed_point_numbers_are_the_nearest_there_are():
    for theta in THETAS:
        for scale in SCALES:
            exact = turns_per_index(128, theta, scale)
            assert frequencies(128, theta, scale).tolist() == [round(t * 2**64) for t in exact]


@pytest.mark.parametrize("bands", [LLAMA, NARROW])
@pytest.mark.parametrize("theta", [5e5, 1e4])
def test_banded_frequencies_are_the_nearest_there_are(theta: float, bands: FrequencyBands):
    for scale in SCALES:
        exact = banded_turns(128, theta, scale, bands)
        found = frequencies(128, theta, scale, bands)
        assert found.tolist() == [round(t * 2**64) for t in exact]
    plain, banded = frequencies(128, theta, 1.0), frequencies(128, theta, 1.0, bands)
    is_same = (plain == banded).tolist()
    assert is_same == sorted(is_same, reverse=True)  # short waves stay, long ones do not
    assert 0 < sum(is_same) < 64
    assert banded[-1].item() == pytest.approx(plain[-1].item() / bands.factor, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_scale_comes_on_top_of_the_bands(scale: float):
    rotation = make_rotation(
        torch.tensor([FAR]), (scale,), head_dim=128, theta=5e5, device=CPU, bands=LLAMA
    )
    exact = tables_of(banded_turns(128, 5e5, scale, LLAMA), FAR)
    assert (tables(rotation)[:, 0] - exact).abs().max() <= 1e-7
    for wrong in (
        banded_turns(128, 5e5, 2 * scale, LLAMA),
        turns_per_index(128, 5e5, scale),
        turns_per_index(128, 5e5, 8 * scale),
    ):
        assert (tables(rotation)[:, 0] - tables_of(wrong, FAR)).abs().max() > 1e-2


def test_one_radian_by_hand():
    """At theta 1 every pair turns by one radian: 2^64 / (2 pi) = 2,935,890,503,282,001,226."""
    assert frequencies(4, 1.0, 1.0).tolist() == [2935890503282001226] * 2
    assert frequencies(4, 1.0, 2.0).tolist() == [1467945251641000613] * 2


def test_a_scale_below_one_wraps_as_phases_do():
    """At scale 1/8 a step is 8 radians, 1.27 turns: a whole turn is not seen."""
    (turn,) = frequencies(2, 1e4, 0.125).tolist()
    assert turn == round(turns_per_index(2, 1e4, 0.125)[0] * 2**64) - 2**64


@pytest.mark.parametrize("theta", THETAS)
def test_far_positions_are_exact_at_any_scale(theta: float):
    found = tables(far_rotation(theta=theta))
    exact = torch.stack([exact_tables(FAR, 128, theta, scale) for scale in SCALES], dim=1)
    assert (found - exact).abs().max() <= 1e-7


def mutants(theta: float, scale: float, head_dim: int = 128) -> dict[str, torch.Tensor]:
    """Tables (2, d/2) of the far token by usual ways that are wrong."""
    inverse = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    position = torch.tensor(float(FAR))

    def of(angles: torch.Tensor) -> torch.Tensor:
        return torch.stack((angles.cos(), angles.sin())).double()

    return {
        "float32 frequencies": of(inverse.float() / scale * position),
        "float32 position, divided first": of((position / scale).double() * inverse),
        "bfloat16 position": of((position / scale).bfloat16().double() * inverse),
        "multiplied by the scale": of(position.double() * scale * inverse),
        "scale left out": of(position.double() * inverse),
        "half the exponent": of(position.double() / scale * inverse.sqrt()),
    }


@pytest.mark.parametrize("theta", THETAS)
def test_usual_wrong_ways_are_rejected(theta: float):
    exact = exact_tables(FAR, 128, theta, 7.3)
    assert (tables(far_rotation(theta=theta))[:, 2] - exact).abs().max() <= LIMIT
    errors = {n: (m - exact).abs().max().item() for n, m in mutants(theta, 7.3).items()}
    assert [name for name, error in errors.items() if error <= 1000 * LIMIT] == []


def test_indices_wrap_in_the_product_alone():
    """An index beyond 2^32, where the product has wrapped many times, is still exact."""
    idx = 2**40 + 12345
    rotation = make_rotation(torch.tensor([idx]), (23.0,), head_dim=64, theta=1e4, device=CPU)
    # Rounding of the frequency, half of 2^-64 turn, times the index.
    limit = 2 * math.pi * idx * 2.0**-65 + 1e-7
    assert (tables(rotation)[:, 0] - exact_tables(idx, 64, 1e4, 23.0)).abs().max() <= limit


def test_tokens_have_the_scales_they_are_given():
    rotation = make_rotation(
        torch.tensor([5, 5, 9]), (1.0, 4.0), torch.tensor([0, 1, 1]), head_dim=8, theta=1e4,
        device=CPU,
    )  # fmt: skip
    for token, (idx, scale) in enumerate([(5, 1.0), (5, 4.0), (9, 4.0)]):
        exact = exact_tables(idx, 8, 1e4, scale)
        assert (tables(rotation)[:, token] - exact).abs().max() <= 1e-7


def embedding_of(kind: str, theta: float, factor: float) -> torch.nn.Module:
    """Transformers' own rotary module with heads of 64."""
    config_of, module_of = {
        "qwen2": (Qwen2Config, Qwen2RotaryEmbedding),
        "llama": (LlamaConfig, LlamaRotaryEmbedding),
    }[kind]
    parameters = {"rope_type": "default", "rope_theta": theta}
    if factor != 1:
        parameters = {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    return module_of(config_of(**sizes, rope_parameters=parameters))


@pytest.mark.parametrize("bands", [LLAMA, NARROW])
@pytest.mark.parametrize("theta", [5e5, 1e4])
def test_compat_bands_are_the_reference_bit_for_bit(theta: float, bands: FrequencyBands):
    parameters = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": bands.factor,
        "low_freq_factor": bands.low_factor,
        "high_freq_factor": bands.high_factor,
        "original_max_position_embeddings": bands.positions,
    }
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    embedding = LlamaRotaryEmbedding(LlamaConfig(**sizes, rope_parameters=parameters))
    idxs = torch.randint(0, 200_000, (257,), generator=torch.Generator().manual_seed(1))
    cos, sin = embedding(torch.zeros(1), idxs[None])
    asked = {"head_dim": 64, "theta": theta, "device": CPU, "bands": bands}
    own = make_rotation(idxs, (1.0,), mode="compat", **asked).tables()
    assert torch.equal(own[0][:, 0], cos[0, :, :32])
    assert torch.equal(own[1][:, 0], sin[0, :, :32])
    # A linear scale on top divides the frequencies, as it does without bands.
    scaled = make_rotation(idxs * 4, (4.0,), mode="compat", **asked).tables()
    assert (scaled[0] - own[0]).abs().max() <= 1e-6
    exact = make_rotation(idxs % 1000, (1.0,), **asked).tables()
    near = make_rotation(idxs % 1000, (1.0,), mode="compat", **asked).tables()
    assert (exact[0] - near[0]).abs().max() <= 1e-4  # 1,000 radians, to 2^-24 of them


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("factor", [1.0, 4.0, 7.3])
@pytest.mark.parametrize("theta", THETAS)
def test_compat_is_the_reference_bit_for_bit(kind: str, factor: float, theta: float):
    idxs = torch.randint(0, 200_000, (257,), generator=torch.Generator().manual_seed(1))
    cos, sin = embedding_of(kind, theta, factor)(torch.zeros(1), idxs[None])
    own = make_rotation(
        idxs, (factor,), head_dim=64, theta=theta, device=CPU, mode="compat"
    ).tables()
    assert torch.equal(own[0][:, 0], cos[0, :, :32])
    assert torch.equal(own[1][:, 0], sin[0, :, :32])
    exact = make_rotation(idxs, (factor,), head_dim=64, theta=theta, device=CPU).tables()
    assert not torch.equal(exact[0], own[0])


def test_parts_are_views():
    rotation = far_rotation()
    part = rotation.part(2, 4)
    assert part.num_tokens == 2
    assert part.head_dim == 128
    assert torch.equal(tables(part), tables(rotation)[:, 2:4])
    assert part.cos.data_ptr() == rotation.cos[2:].data_ptr()
    assert rotation.to(CPU) is rotation


def test_a_kernel_gets_no_tables_and_torch_makes_them_where_they_miss(
    monkeypatch: pytest.MonkeyPatch,
):
    expected = tables(far_rotation())
    monkeypatch.setattr(module, "uses_triton", lambda _: True)
    bare = far_rotation()
    assert bare.cos is None
    assert bare.sin is None
    assert bare.part(1, 3).cos is None
    assert torch.equal(tables(bare), expected)
    compat = far_rotation(mode="compat")
    assert compat.cos is not None
    assert compat.part(1, 3).tables()[0].data_ptr() == compat.cos[1:].data_ptr()


def test_moving_to_a_device_without_kernels_makes_tables_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "uses_triton", lambda tensor: tensor.device == CPU)
    bare = far_rotation()
    moved = bare.to(torch.device("meta"))  # stands for a device where torch rotates
    assert bare.cos is None
    assert moved.cos.shape == (len(SCALES), 1, 64)
    assert {x.device.type for x in (moved.idxs, moved.frequencies, moved.sin)} == {"meta"}


def test_copies_stand_in_the_same_memory():
    rotation, other = far_rotation(), far_rotation(theta=1e4)
    places = [x.data_ptr() for x in (rotation.idxs, rotation.frequencies, rotation.cos)]
    rotation.copy_(other)
    assert [x.data_ptr() for x in (rotation.idxs, rotation.frequencies, rotation.cos)] == places
    assert torch.equal(tables(rotation), tables(other))
    assert torch.equal(rotation.frequencies, other.frequencies)
    with pytest.raises(ValueError, match="over"):
        rotation.copy_(other.part(0, 2))
    bare = Rotation(idxs=other.idxs, scale_idxs=other.scale_idxs, frequencies=other.frequencies)
    with pytest.raises(ValueError, match="over"):
        rotation.copy_(bare)
    bare.copy_(
        Rotation(**{n: getattr(bare, n).clone() for n in ("idxs", "scale_idxs", "frequencies")})
    )


@pytest.mark.parametrize("mode", ["exact", "compat"])
def test_going_on_is_the_rotation_of_the_next_token(mode):
    rotation = far_rotation(mode=mode)
    place, before = rotation.cos.data_ptr(), tables(rotation)
    rotation.advance_()
    following = make_rotation(
        torch.full((len(SCALES),), FAR + 1), SCALES, torch.arange(len(SCALES)),
        head_dim=128, theta=1e6, device=CPU, mode=mode,
    )  # fmt: skip
    assert torch.equal(tables(rotation), tables(following))
    assert not torch.equal(tables(rotation), before)
    assert rotation.cos.data_ptr() == place
    assert rotation.idxs.tolist() == following.idxs.tolist()


def test_going_on_without_tables_moves_the_indices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "uses_triton", lambda _: True)
    bare = far_rotation()
    bare.advance_()
    assert bare.cos is None
    assert bare.idxs.tolist() == [FAR + 1] * len(SCALES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1.0, 2.0),), "nothing says whose"),
        (((1.0,), torch.tensor([0])), "one for each"),
        (((0.0,),), "above 0"),
        (((math.nan,),), "above 0"),
        (((math.inf,),), "above 0"),
    ],
)
def test_wrong_scales_are_refused(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        make_rotation(torch.arange(3), *arguments, head_dim=8, theta=1e4, device=CPU)


@pytest.mark.parametrize("head_dim", [0, 7])
def test_an_odd_head_is_refused(head_dim: int):
    with pytest.raises(ValueError, match="no channel pairs"):
        frequencies(head_dim, 1e4, 1.0)
