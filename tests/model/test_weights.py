"""The folders of a checkpoint become shards under a whole one's names, and a change that fits."""

import shutil
from pathlib import Path

import overlay_cases as cases
import pytest
import torch
from torch import Tensor

from llava_video.errors import CheckpointError
from llava_video.model.changes import Change, Difference, LastRows, LowRank
from llava_video.model.model_config import read_model_config
from llava_video.model.sources import find_sources
from llava_video.model.weights import Weights, open_weights

Q_WEIGHT = "language_model.layers.0.q_proj.weight"


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "base"))


def opened(folder: Path, **options: object) -> Weights:
    sources = find_sources(folder, **options)
    return open_weights(sources, read_model_config(sources.config_folder).dimensions)


def names_of(shards: object) -> set[str]:
    return {name for shard in shards for name in shard.shapes}


def test_a_whole_checkpoint_is_its_shards(base: Path):
    found = opened(base)
    assert names_of(found.shards) == set(cases.stored(base))
    assert (found.over, type(found.change), found.place) == ((), Change, str(base))


def test_a_tower_apart_comes_after_the_own_shards(tiny_folder: Path, tmp_path: Path):
    apart = cases.write_tower_apart(tiny_folder, tmp_path / "apart")
    own, tower = opened(apart).shards
    assert set(own.shapes) == set(cases.stored(apart))
    assert tower.path == tmp_path / "owner" / "tower" / "model.safetensors"


@pytest.mark.parametrize("wrapper", ["base_model.model.", "base_model.", "model.", ""])
@pytest.mark.parametrize("middle", ["", ".default"])
def test_the_names_of_an_adapter_are_unwrapped(
    base: Path, tmp_path: Path, wrapper: str, middle: str
):
    down, up = cases.low_rank(4, 64, 64, 1)
    folder = cases.write_adapter(base, tmp_path / "adapter", {})
    module = f"{wrapper}{cases.Q_PROJ}.lora_"
    torch.save(
        {f"{module}A{middle}.weight": down, f"{module}B{middle}.weight": up},
        folder / "adapter_model.bin",
    )
    projector = {n: t for n, t in cases.stored(base).items() if n.startswith(cases.PROJECTOR)}
    torch.save(
        {f"{wrapper}{name}": tensor for name, tensor in projector.items()},
        folder / "non_lora_trainables.bin",
    )
    found = opened(folder)
    assert isinstance(found.change, LowRank)
    assert set(found.change.pairs) == {Q_WEIGHT}
    assert names_of(found.over) == set(projector)
    assert found.place == f"{folder} over {base}"


@pytest.mark.parametrize(
    ("changed", "scale"),
    [
        ({}, 2.0),
        ({"lora_alpha": 1}, 0.25),
        ({"use_rslora": True}, 4.0),  # 8 / sqrt(4)
    ],
)
def test_the_scale_of_an_adapter(base: Path, tmp_path: Path, changed: dict, scale: float):
    pairs = {cases.Q_PROJ: cases.low_rank(4, 64, 64, 1)}
    change = opened(cases.write_adapter(base, tmp_path / "adapter", pairs, **changed)).change
    assert isinstance(change, LowRank)
    assert change.scale == scale


def test_an_adapter_for_modules_that_do_not_exist_is_refused(base: Path, tmp_path: Path):
    pairs = {
        cases.Q_PROJ: cases.low_rank(4, 64, 64, 1),
        "model.layers.7.self_attn.q_proj": cases.low_rank(4, 64, 64, 2),
    }
    with pytest.raises(CheckpointError) as caught:
        opened(cases.write_adapter(base, tmp_path / "adapter", pairs))
    assert "2 meet no weight of the model: base_model.model.model.layers.7" in caught.value.message
    assert "belong together" in caught.value.hint


def test_an_adapter_of_another_size_is_refused(base: Path, tmp_path: Path):
    pairs = {cases.Q_PROJ: cases.low_rank(4, 64, 48, 1)}
    with pytest.raises(
        CheckpointError, match=r"1 are of another size: .*lora_A.* \[4, 48\], needed \[4, 64\]"
    ):
        opened(cases.write_adapter(base, tmp_path / "adapter", pairs))
    pairs = {cases.Q_PROJ: cases.low_rank(4, 64, 64, 1)}
    other_rank = cases.write_adapter(base, tmp_path / "rank", pairs, r=2)
    with pytest.raises(CheckpointError, match=r"2 are of another size: .* needed \[2, 64\]"):
        opened(other_rank)


def test_half_an_adapter_is_refused(base: Path, tmp_path: Path):
    folder = cases.write_adapter(base, tmp_path / "adapter", {})
    with pytest.raises(CheckpointError, match="none is a change of a weight"):
        opened(folder)
    half = {f"base_model.model.{cases.Q_PROJ}.lora_A.weight": torch.zeros(4, 64)}
    torch.save(half, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=f"1 lack their other half: {Q_WEIGHT}"):
        opened(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("use_dora", True),
        ("fan_in_fan_out", True),
        ("bias", "all"),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 8}),
        ("modules_to_save", ["lm_head"]),
    ],
)
def test_other_kinds_of_adapter_are_refused(base: Path, tmp_path: Path, key: str, value: object):
    pairs = {cases.Q_PROJ: cases.low_rank(4, 64, 64, 1)}
    folder = cases.write_adapter(base, tmp_path / "adapter", pairs, **{key: value})
    with pytest.raises(CheckpointError, match=f"has {key} = ") as caught:
        opened(folder)
    assert "merge the adapter" in caught.value.hint


def test_rows_of_an_embedding_are_split_off_a_projector(base: Path, tmp_path: Path):
    embedding = cases.stored(base)[cases.EMBEDDING]
    projector = {n for n in cases.stored(base) if n.startswith(cases.PROJECTOR)}
    for num_rows in (2, len(embedding)):  # the last ones, or a whole embedding
        rows = {cases.EMBEDDING: torch.zeros(num_rows, 64)}
        found = opened(cases.write_projector(base, tmp_path / f"{num_rows}", rows))
        assert isinstance(found.change, LastRows)
        assert found.change.num_rows == num_rows
        assert names_of(found.over) == projector
    # Rows of another width are no rows of it; the accounting of tensors says so.
    narrow = {cases.EMBEDDING: torch.zeros(2, 63)}
    found = opened(cases.write_projector(base, tmp_path / "narrow", narrow))
    assert (type(found.change), names_of(found.over)) == (Change, {*projector, cases.EMBEDDING})


@pytest.mark.parametrize("kind", ["projector", "adapter"])
@pytest.mark.parametrize("num_left", [3, 1, 0])
def test_a_projector_that_is_not_whole_is_refused(
    base: Path, tmp_path: Path, kind: str, num_left: int
):
    """The base has one of its own, which would fill the gap; an adapter may have none."""
    names = [name for name in cases.stored(base) if name.startswith(cases.PROJECTOR)]
    kept = {name: cases.stored(base)[name] for name in names[:num_left]}
    if kind == "projector":
        folder = cases.write_projector(base, tmp_path / "overlay", {})
        torch.save(kept, folder / "mm_projector.bin")
    else:
        pairs = {cases.Q_PROJ: cases.low_rank(4, 64, 64, 1)}
        folder = cases.write_adapter(base, tmp_path / "overlay", pairs)
        torch.save(kept, folder / "non_lora_trainables.bin")
        if not num_left:
            assert opened(folder).over[0].shapes == {}
            return
    with pytest.raises(CheckpointError, match=f"holds {num_left} of the 4 tensors") as caught:
        opened(folder)
    assert names[num_left] in caught.value.message


def test_the_text_model_beside_a_tower_is_left_out(tiny_folder: Path, tmp_path: Path):
    found = opened(cases.write_tower_apart(tiny_folder, tmp_path / "apart"))
    names = names_of(found.shards)
    assert "vision_model.head.probe" in names  # known, and not needed
    assert not [name for name in names if name.startswith(("text_model", "logit", "visual"))]


def delta_of(base: Path, target: Path, change: dict[str, Tensor]) -> Path:
    norm = {cases.NORM: torch.zeros(64)}  # by which a delta is told
    return cases.write_model(base, target, cases.stored(base) | norm | change)


def test_a_delta_is_added_to_the_tensors_its_base_has(base: Path, tmp_path: Path):
    language = {
        n: t
        for n, t in cases.stored(base).items()
        if not n.startswith(("model.vision", "model.mm"))
    }
    llama = cases.write_model(base, tmp_path / "llama", language)
    found = opened(delta_of(base, tmp_path / "delta", {}), base=llama)
    assert isinstance(found.change, Difference)
    assert Q_WEIGHT in found.change.base
    assert not [ours for ours in found.change.base if ours.startswith(("vision", "projector"))]
    assert names_of(found.shards) == set(cases.stored(base))


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (
            {cases.Q_PROJ + ".weight": torch.zeros(64, 8)},
            r"1 of another size: .* is \[64, 8\], the d",
        ),
        ({cases.EMBEDDING: torch.zeros(9000, 64)}, "1 of another size: model.embed_tokens"),
        ({"model.strange": torch.zeros(1)}, r"1 unknown: model\.strange"),
    ],
)
def test_a_base_that_is_not_the_deltas_is_refused(
    base: Path, tmp_path: Path, changed: dict[str, Tensor], found: str
):
    other = cases.write_model(base, tmp_path / "other", cases.stored(base) | changed)
    with pytest.raises(CheckpointError, match=found) as caught:
        opened(delta_of(base, tmp_path / "delta", {}), base=other)
    assert "of the same size" in caught.value.hint


def test_a_base_that_lacks_a_weight_of_the_delta_is_refused(base: Path, tmp_path: Path):
    rest = {n: t for n, t in cases.stored(base).items() if n != "model.norm.weight"}
    other = cases.write_model(base, tmp_path / "other", rest)
    with pytest.raises(CheckpointError, match=r"1 missing: model\.norm\.weight"):
        opened(delta_of(base, tmp_path / "delta", {}), base=other)
