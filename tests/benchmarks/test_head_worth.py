"""What a head is worth is what is lost without it, and where it looks is its own attention."""

import json
from pathlib import Path

import head_worth
import pytest
import torch

from llava_video.train.new_model import NewModel, world_texts, write_new_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"tile_px": 24, "patch_px": 6, "vision_hidden_size": 16, "vision_intermediate_size": 32}
    text = {"hidden_size": 32, "intermediate_size": 32, "num_layers": 2, "num_heads": 4}
    new = NewModel(**sizes, vision_num_heads=2, **text, num_kv_heads=2, clips=8)
    path = tmp_path_factory.mktemp("new") / "model"
    return write_new_model(path, new, world_texts(new.clips))


def test_a_row_has_every_head(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert head_worth.main(["--model", str(folder), "--check"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    heads = [(layer, head) for layer in range(2) for head in range(4)]
    assert [(one["layer"], one["head"]) for one in row["looks"]] == heads
    assert all(0 < one[name] < 1 for one in row["looks"] for name in ("name", "answer", "trail"))
    assert [(one["layer"], one["heads"]) for one in row["costs"]] == [
        (layer, heads) for layer in range(2) for heads in ([0, 1], [2, 3])
    ]


def test_without_heads_is_without_what_they_say(folder: Path):
    net, batches = head_worth._read(str(folder), 2, seed=0)
    whole = head_worth._loss(net, batches)
    layer = net.model.language_model.layers[1]
    with head_worth._without(layer, [2, 3]):
        without = head_worth._loss(net, batches)
    assert head_worth._loss(net, batches) == whole != without
    with torch.no_grad():
        layer.o_proj.weight[:, 2 * layer.head_dim :] = 0
    assert head_worth._loss(net, batches) == pytest.approx(without, abs=1e-6)
