"""The fusion equals its definition, however its frames are divided, and no wrong formula passes."""

import dataclasses

import pytest
import torch
from fusion_by_hand import WRONG, compress_by_hand, prompt_by_hand
from kernels import interpreted
from seeded_models import DIMENSIONS, TEXT, filled

from llava_video.model import fusion as fusion_module
from llava_video.model.dimensions import FusionConfig
from llava_video.model.fusion import FusedPrompt, Fusion, QueryAttention, hidden_positions
from llava_video.model.llava import LlavaModel
from llava_video.ops import dispatch
from llava_video.ops.rotation import make_rotation

# The visual, a hidden token 0, and a last word.
IDS = [3, 8, -200, 5, 0, 11, 2]
NO_ANSWER = -100


def model_of(split: int = 2, side: int = 2, num_layers: int = 2, **text: object) -> LlavaModel:
    dimensions = dataclasses.replace(
        DIMENSIONS,
        text=dataclasses.replace(TEXT, **text),
        fusion=FusionConfig(side=side, num_layers=num_layers, split=split),
    )
    return filled(LlavaModel(dimensions), spread=0.2)


def features_of(num_frames: int, split: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_frames)
    return torch.randn(num_frames, split**2 + (split > 1), 16, 24, generator=generator)


@torch.inference_mode()
def rows_of(model: LlavaModel, features, ids=IDS, labels=None, together: int = 64) -> torch.Tensor:
    prompt = model.fused_prompt(ids, len(features), labels)
    for frames in features.split(together):
        prompt.add(frames)
    return prompt.rows()


def error_of(rows: torch.Tensor, expected: torch.Tensor) -> float:
    return ((rows - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(
    ("split", "side", "text"),
    [
        (1, 1, {}),
        (1, 3, {"rope_scale": 4.0}),
        (2, 2, {"qkv_bias": False}),
        (3, 1, {"num_kv_heads": 6, "num_heads": 6}),
    ],
)
@pytest.mark.parametrize("num_frames", [1, 3])
def test_rows_are_those_of_the_definition(split, side, text, num_frames):
    model, features = model_of(split, side, **text), features_of(num_frames, split)
    rows, expected = rows_of(model, features), prompt_by_hand(model, features, IDS)
    assert rows.shape == (len(IDS) - 1 + num_frames * side**2, TEXT.hidden_size)
    assert error_of(rows, expected) < 1e-5
    raw = model.language_model.embed_tokens.weight[0]
    assert torch.equal(rows[4 - 1 + num_frames * side**2], raw)  # what is hidden stays as it is


def test_the_answers_of_training_are_hidden():
    model, features = model_of(), features_of(2)
    labels = [NO_ANSWER] * 5 + [11, 2]
    rows = rows_of(model, features, labels=labels)
    assert error_of(rows, prompt_by_hand(model, features, IDS, labels)) < 1e-5
    assert torch.equal(rows[-2:], model.language_model.embed_tokens.weight[[11, 2]])
    assert error_of(rows, rows_of(model, features)) > 1e-2


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_formulas_are_noticed(wrong):
    model, features = model_of(), features_of(2)
    right = prompt_by_hand(model, features, IDS)
    assert error_of(prompt_by_hand(model, features, IDS, wrong=wrong), right) > 1e-3


@pytest.mark.parametrize("together", [1, 2, 3, 7])
def test_any_division_of_the_frames_gives_the_same_rows(together):
    model, features = model_of(), features_of(7)
    whole = rows_of(model, features)
    assert error_of(rows_of(model, features, together=together), whole) < 1e-6
    last_alone = rows_of(model, features[-1:])
    assert error_of(last_alone[-4:], whole[-4:]) > 1e-2  # the text is of all frames, not the last


@torch.inference_mode()
@pytest.mark.parametrize(("side", "shape"), [(1, (3, 5)), (2, (4, 4)), (3, (14, 14))])
def test_queries_read_a_map(side, shape):
    fusion = model_of(side=side).fusion
    maps = torch.randn(2, *shape, 24, generator=torch.Generator().manual_seed(1))
    found = fusion.compress(maps)
    expected = torch.stack([compress_by_hand(fusion, grid.double()) for grid in maps])
    assert error_of(found, expected) < 1e-5


@interpreted
def test_the_kernels_make_the_same_rows(monkeypatch):
    model, features = model_of(), features_of(3)
    expected = rows_of(model, features)
    monkeypatch.setattr(dispatch, "_choice", lambda: "triton")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = rows_of(model_of().to(device), features.to(device)).cpu()
    assert error_of(rows, expected) < 1e-5


def test_what_is_hidden():
    assert hidden_positions([5, -200, 0, 7]) == [False, True, True, False]
    assert hidden_positions([5, -1, 7, 0], [-100, -100, 7, 0]) == [False, True, True, True]
    with pytest.raises(ValueError, match="shorter"):
        hidden_positions([1, 2], [NO_ANSWER])


def test_a_call_that_raises_takes_nothing_in(monkeypatch):
    model, features = model_of(), features_of(3)
    expected = rows_of(model, features)
    prompt = model.fused_prompt(IDS, 3)
    with torch.inference_mode():
        prompt.add(features[:1])
        fuse, tried = Fusion.fuse, []

        def once(self, *args):
            tried.append(args)
            if len(tried) == 1:
                raise torch.OutOfMemoryError("tried to allocate 2.00 GiB.")
            return fuse(self, *args)

        monkeypatch.setattr(Fusion, "fuse", once)
        with pytest.raises(torch.OutOfMemoryError):
            prompt.add(features[1:])
        assert prompt.num_done == 1
        prompt.add(features[1:2])
        prompt.add(features[2:])
    assert error_of(prompt.rows(), expected) < 1e-6


def test_rows_are_there_when_all_frames_have_passed():
    model = model_of()
    prompt = model.fused_prompt(IDS, 2)
    with torch.inference_mode():
        prompt.add(features_of(1))
        with pytest.raises(ValueError, match="1 of 2 frames"):
            prompt.rows()
        with pytest.raises(ValueError, match=r"4 tiles .* reads 5"):
            prompt.add(features_of(1)[:, :4])


@pytest.mark.parametrize("ids", [[1, 2], [1, -200, 4, -200]])
def test_a_prompt_has_one_visual(ids):
    with pytest.raises(ValueError, match="visuals in a prompt"):
        model_of().fused_prompt(ids, 1)


def test_a_call_takes_as_many_frames_as_keep_a_device_busy():
    """8,192 rows: eleven frames of 576 patches, one query and 150 words; one of a long prompt."""
    fusion = model_of(split=1, side=1).fusion

    def frames(num_words: int, num_patches: int = 576) -> int:
        ids = [-200] + [1] * num_words
        prompt = FusedPrompt(fusion, torch.nn.Identity(), torch.zeros(len(ids), 32), ids, 1)
        return prompt.frames_at_once(num_patches)

    assert frames(150) == 8192 // (576 + 1 + 150) == 11
    assert frames(150, 5 * 576) == 2
    assert frames(9000) == 1


def test_everything_learns():
    """Training sees the same rows, and every weight of the fusion has a gradient."""
    model, features = model_of(), features_of(2)
    labels = [NO_ANSWER] * 5 + [11, 2]
    prompt = model.fused_prompt(IDS, 2, labels)
    prompt.add(features)
    rows = prompt.rows()
    assert error_of(rows, rows_of(model, features, labels=labels)) < 1e-6
    rows.square().sum().backward()
    without = [name for name, p in model.fusion.named_parameters() if p.grad is None]
    assert without == []
    assert all(p.grad.abs().max() > 0 for p in model.fusion.parameters())


def test_parameters_are_named_as_checkpoints_are_read():
    model = model_of(num_layers=1)
    names = {name for name, _ in model.named_parameters() if name.startswith("fusion.")}
    layer = {n.removeprefix("language_model.layers.0.") for n, _ in model.named_parameters()}
    layer = {f"fusion.layers.0.{n}" for n in layer if n.split(".")[0].endswith(("proj", "norm"))}
    assert {"fusion.query", "fusion.position", "fusion.attention.in_proj.weight"} < names
    assert {n for n in names if n.startswith("fusion.layers.0.")} <= layer
    assert len(names) == 2 + 4 + 4 + 12


def test_a_model_without_sizes_of_it_has_none():
    assert LlavaModel(DIMENSIONS).fusion is None
    with pytest.raises(ValueError, match="no sizes"):
        Fusion(DIMENSIONS)
    assert QueryAttention(24, 8).in_proj.weight.shape == (72, 24)


@pytest.mark.parametrize("rope", ["exact", "compat"])
def test_angles_are_the_asked_ones(rope, monkeypatch):
    made = []

    def making(*args, **options):
        made.append(make_rotation(*args, **options))
        return made[-1]

    monkeypatch.setattr(fusion_module, "make_rotation", making)
    fusion = model_of().fusion
    assert fusion.rope == "exact"
    fusion.rope = rope
    width = TEXT.hidden_size
    with torch.inference_mode():
        fusion.fuse(torch.zeros(1, 2, width), torch.zeros(1, 4, width), torch.zeros(3, width))
    assert (made[0].radians is not None) == (rope == "compat")
