import pytest
import torch
from kernels import interpreted
from seeded_models import TEXT, model_of, new_cache, relative_error

from llava_video.errors import ConfigError
from llava_video.model.sinks import read_sinks
from llava_video.model.step_rows import Row

FORMATS = ("plain", "int8", "int4")
IDS = (3, 1, 4, 1, 5)
FAR = 123_456_789


@pytest.fixture
def model():
    return model_of(TEXT)


@torch.inference_mode()
def by_a_step(model, first_idx, kv_format, scale=1.0):
    """Return a cache in which a step has written the ids at these indices, and their span."""
    cache = new_cache(model)
    span = cache.reserve(len(IDS), kv_format).span
    idxs = torch.arange(first_idx, first_idx + len(IDS))
    hidden = model.embed(torch.tensor(IDS))
    model(hidden, idxs, [Row(0, len(IDS), (), span)], cache, [scale])
    return cache, span


def written(model, sinks, first_idx):
    cache = new_cache(model)
    cache.reserve(3, sinks.kv_format)  # not at the first place
    span = cache.reserve(len(IDS), sinks.kv_format).span
    sinks.write(cache, span, first_idx)
    return cache, span


def layers(cache, span):
    return [cache.stored(layer_idx, span) for layer_idx in range(cache.num_layers)]


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("kv_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_are_what_a_step_stores_bit_for_bit(model, kv_format, dtype, scale):
    model = model.to(dtype)
    sinks = read_sinks(model, IDS, position_scale=scale, kv_format=kv_format)
    expected = layers(*by_a_step(model, 0, kv_format, scale))
    for mine, other in zip(layers(*written(model, sinks, 0)), expected, strict=True):
        assert torch.equal(mine.k, other.k)
        assert torch.equal(mine.v, other.v)
        if mine.k_scales is not None:
            assert torch.equal(mine.k_scales, other.k_scales)
            assert torch.equal(mine.v_scales, other.v_scales)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_far_away_they_are_those_of_a_step_there(model, scale):
    """The mutant, an index off by one, is far off."""
    sinks = read_sinks(model, IDS, position_scale=scale)
    expected = layers(*by_a_step(model, FAR, "plain", scale))
    mine = layers(*written(model, sinks, FAR))
    wrong = layers(*written(model, sinks, FAR + 1))
    for each, other, off in zip(mine, expected, wrong, strict=True):
        assert relative_error(each.k, other.k) < 1e-5
        assert relative_error(each.v, other.v) < 1e-5
        assert relative_error(off.k, other.k) > 1e-2


def test_writing_leaves_them_as_they_were(model):
    sinks = read_sinks(model, IDS)
    once = layers(*written(model, sinks, 7))
    for first_idx in range(0, FAR, FAR // 50):
        written(model, sinks, first_idx)
    again = layers(*written(model, sinks, 7))
    assert all(torch.equal(one.k, other.k) for one, other in zip(once, again, strict=True))


@interpreted
@pytest.mark.parametrize("kv_format", FORMATS)
def test_the_kernel_writes_the_same(model, monkeypatch, kv_format):
    sinks = read_sinks(model, IDS, kv_format=kv_format)
    expected = layers(*written(model, sinks, 1000))
    monkeypatch.setenv("LLAVA_VIDEO_OPS", "triton")
    for mine, other in zip(layers(*written(model, sinks, 1000)), expected, strict=True):
        for one, two in zip(mine.plain(torch.float32), other.plain(torch.float32), strict=True):
            most = {"plain": 1e-5, "int8": 2e-2, "int4": 0.3}[kv_format]  # a code's width
            assert relative_error(one, two) < most


def test_what_is_refused(model):
    with pytest.raises(ConfigError, match="words before frames"):
        read_sinks(model, ())
    model.rope = "compat"
    with pytest.raises(ConfigError, match="float32 angles"):
        read_sinks(model, IDS)
