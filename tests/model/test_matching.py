"""Every tensor and parameter is accounted for, and tensors of another member are recognised."""

from pathlib import Path

import pytest

from llava_video.errors import CheckpointError
from llava_video.model.changes import LastRows
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.matching import TensorMap, match_tensors
from llava_video.model.model_config import parse_model_config, read_model_config
from llava_video.model.names import file_names, parameter_shapes
from llava_video.model.shards import Shard
from llava_video.model.tiny_spec import TinySpec, tiny_values
from llava_video.model.weights import Weights


@pytest.fixture
def dimensions(tiny_folder: Path) -> ModelDimensions:
    return read_model_config(tiny_folder).dimensions


def shapes_of(
    dimensions: ModelDimensions, spelling: str = "original"
) -> dict[str, tuple[int, ...]]:
    expected = parameter_shapes(dimensions)
    return {theirs: expected[ours] for ours, theirs in file_names(dimensions, spelling).items()}


def shard(name: str, shapes: dict[str, tuple[int, ...]], dtype: str = "F32") -> Shard:
    return Shard(Path(name), shapes, dict.fromkeys(shapes, dtype))


def match(dimensions: ModelDimensions, *shards: Shard, over: tuple[Shard, ...] = ()) -> TensorMap:
    return match_tensors(Weights(place="here", shards=shards, over=over), dimensions)


def refused(dimensions: ModelDimensions, *shards: Shard) -> CheckpointError:
    with pytest.raises(CheckpointError, match=r"the weights in here do not fit") as caught:
        match(dimensions, *shards)
    return caught.value


def test_each_tensor_goes_to_its_parameter(dimensions: ModelDimensions):
    found = match(dimensions, shard("a", shapes_of(dimensions)))
    (part,) = found.parts
    assert part.ours == {
        theirs: ours for ours, theirs in file_names(dimensions, "original").items()
    }
    assert found.dimensions == dimensions


def test_only_siglip_files_may_leave_the_head_out(dimensions: ModelDimensions):
    headless = {n: s for n, s in shapes_of(dimensions).items() if n != "lm_head.weight"}
    assert match(dimensions, shard("a", headless)).dimensions.text.tie_embeddings
    clip = parse_model_config(tiny_values(TinySpec(member="LLaVA-1.5"))).dimensions
    headless = {n: s for n, s in shapes_of(clip).items() if n != "lm_head.weight"}
    assert "1 missing: lm_head.weight" in refused(clip, shard("a", headless)).message


def test_a_newline_of_another_member_is_unknown():
    """Weights of LLaVA-NeXT beside a configuration of LLaVA-1.5, which would load otherwise."""
    clip = parse_model_config(tiny_values(TinySpec(member="LLaVA-1.5"))).dimensions
    shapes = shapes_of(clip) | {"model.image_newline": (64,)}
    assert "1 unknown: model.image_newline" in refused(clip, shard("a", shapes)).message


def test_what_lies_over_takes_the_place_of_what_is_below(dimensions: ModelDimensions):
    """In any spelling: the overlay is an original's, the base a conversion."""
    bias = {"model.mm_projector.0.bias": (64,)}
    below, over = match(
        dimensions, shard("a", shapes_of(dimensions, "hf")), over=(shard("b", bias),)
    ).parts
    assert over.ours == {"model.mm_projector.0.bias": "projector.linear1.bias"}
    assert "projector.linear1.bias" not in below.ours.values()
    assert len(below.ours) + 1 == len(parameter_shapes(dimensions))


def test_the_same_parameter_twice_is_doubled_unless_one_lies_over(dimensions: ModelDimensions):
    whole = shard("a", shapes_of(dimensions))
    error = refused(dimensions, whole, shard("b", {"model.norm.weight": (64,)}))
    assert "1 doubled: model.norm.weight" in error.message


def test_a_parameter_that_is_given_needs_no_tensor(dimensions: ModelDimensions):
    shapes = {n: s for n, s in shapes_of(dimensions).items() if n != "model.image_newline"}
    weights = Weights(place="here", shards=(shard("a", shapes),))
    assert match_tensors(weights, dimensions, {"image_newline"}).parts[0].ours
    assert "1 missing: model.image_newline" in refused(dimensions, shard("a", shapes)).message


def test_shapes_are_those_after_the_change(dimensions: ModelDimensions):
    vocab_size, hidden = shapes_of(dimensions)["lm_head.weight"]
    short = {"lm_head.weight": (vocab_size - 2, hidden)}
    short["model.embed_tokens.weight"] = short["lm_head.weight"]
    whole = shard("a", shapes_of(dimensions) | short)
    change = LastRows((shard("b", {}), "rows"), num_rows=2, vocab_size=vocab_size)
    weights = Weights(place="here", shards=(whole,), change=change)
    assert len(match_tensors(weights, dimensions).parts[0].ours) == len(
        parameter_shapes(dimensions)
    )
    error = refused(dimensions, whole)
    assert f"2 of a wrong shape: model.embed_tokens.weight is [{vocab_size - 2}" in error.message


def test_dtypes_that_are_no_weights_are_named(dimensions: ModelDimensions):
    error = refused(dimensions, shard("a", shapes_of(dimensions), "I8"))
    assert "not floating point: " in error.message
    assert "(I8)" in error.message


MINI = {"model.compressor.query": (1, 32), "model.compressor.ln_q.weight": (32,)}
LINEAR = {"model.mm_projector.weight": (64, 32), "model.mm_projector.bias": (64,)}
CLIP = {"model.vision_tower.vision_tower.vision_model.embeddings.class_embedding": (32,)}


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (MINI, "those of LLaVA-Mini: model.compressor.query"),
        (LINEAR, "those of LLaVA, the first (a projector of one layer): model.mm_projector.weight"),
        (CLIP, "those of LLaVA-1.5, LLaVA-NeXT or one of their kin (a CLIP tower): model.vision"),
    ],
)
def test_tensors_of_another_member_are_recognised(
    dimensions: ModelDimensions, more: dict[str, tuple[int, ...]], found: str
):
    kept = {n: s for n, s in shapes_of(dimensions).items() if "patch_embedding.bias" not in n}
    error = refused(dimensions, shard("a", kept | more))
    assert "unknown: " in error.message
    assert found in error.hint
    assert "config.json belongs to these weights" in error.hint


def test_the_look_of_the_own_line_and_of_no_line_at_all(dimensions: ModelDimensions):
    shapes = shapes_of(dimensions)
    lacking = {n: s for n, s in shapes.items() if n != "model.norm.weight"}
    assert refused(dimensions, shard("a", lacking)).hint.startswith("check that config.json")
    language = {n: s for n, s in shapes.items() if "vision" not in n and "mm_proj" not in n}
    assert "a language model alone" in refused(dimensions, shard("a", language)).hint
    # A wrong size says nothing of the member.
    sizes = shapes | {"model.norm.weight": (7,)}
    assert refused(dimensions, shard("a", sizes)).hint.startswith("check that config.json")
