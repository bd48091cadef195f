"""What a conversion writes beside the tensors: rows for placeholders, keys, and words of loss."""

import json
from pathlib import Path

import pytest

from llava_video.errors import CheckpointError
from llava_video.model.conversion_goal import goal_of
from llava_video.model.convert import convert_checkpoint
from llava_video.model.model_config import read_model_config
from llava_video.model.sources import find_sources
from llava_video.model.tiny import write_tiny_checkpoint


def test_placeholders_take_the_first_ids_that_no_text_uses(tmp_path: Path) -> None:
    """259 ids of 320 rows leave room for two; of 259 rows none, and 261 become 5 x 64 = 320."""
    for num_rows, whole, said in ((320, 320, False), (259, 320, True)):
        tiny = write_tiny_checkpoint(
            tmp_path / f"{num_rows}", member="LLaVA-NeXT-Video", vocab_size=num_rows
        )
        config = read_model_config(tiny)
        goal = goal_of(find_sources(tiny), config, config.dimensions, "hf")
        assert goal.config.text.vocab_size == whole
        ids = [goal.config.values[f"{kind}_token_index"] for kind in ("image", "video")]
        assert sorted(ids) == [259, 260]
        assert bool(goal.notes) is said
        assert goal.num_text_rows == num_rows


def test_what_transformers_cannot_say_is_told(tmp_path: Path) -> None:
    """Pinpoints spelled as text become the pairs that transformers reads, height first."""
    tiny = write_tiny_checkpoint(tmp_path / "tiny", member="LLaVA-NeXT-Video")
    path = tiny / "config.json"
    values = json.loads(path.read_text())
    pairs = values["image_grid_pinpoints"]
    unlike = {"mm_pooling_position": "after", "mm_newline_position": "grid"}
    path.write_text(json.dumps(values | unlike | {"image_grid_pinpoints": str(pairs)}))
    done = convert_checkpoint(tiny, tmp_path / "hf", layout="hf")
    assert "reads no mm_newline_position = 'grid' and no mm_pooling_position" in done.notes[0]
    written = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert written["image_grid_pinpoints"] == [pair[::-1] for pair in pairs]
    path.write_text(json.dumps(values))
    plain = convert_checkpoint(tiny, tmp_path / "plain", layout="hf")
    assert not any("mm_" in note for note in plain.notes)


def test_more_ids_than_rows_are_refused(tmp_path: Path) -> None:
    tiny = write_tiny_checkpoint(tmp_path / "tiny", member="LLaVA-1.5")
    values = json.loads((tiny / "tokenizer.json").read_text())
    values["model"]["vocab"]["far"] = 5000
    (tiny / "tokenizer.json").write_text(json.dumps(values))
    for layout in ("hf", "original"):
        with pytest.raises(CheckpointError, match="ids up to 5000, the embedding has 320 rows"):
            convert_checkpoint(tiny, tmp_path / "out", layout=layout)
