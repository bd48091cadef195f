"""`llava-video convert`: what it writes, what it says, and what it refuses."""

import json
from pathlib import Path

from llava_video.model.model_config import read_model_config
from llava_video.model.tiny import write_tiny_checkpoint


def test_a_folder_is_written_in_the_other_layout(run, tiny_folder: Path, tmp_path: Path) -> None:
    outcome = run("convert", tiny_folder, tmp_path / "hf", "--to", "hf", "--shard-size", "300kB")
    assert outcome.status == 0
    assert outcome.err == ""
    assert outcome.out.startswith(f"{tmp_path / 'hf'}: LLaVA-Video, ")
    assert "files, read back and compared." in outcome.out
    assert read_model_config(tmp_path / "hf").layout == "hf"
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 1


def test_what_was_written_as_json(run, tiny_folder: Path, tmp_path: Path) -> None:
    values = json.loads(
        run(
            "convert",
            tiny_folder,
            tmp_path / "a",
            "--to",
            "original",
            "--dtype",
            "float16",
            "--json",
        ).out
    )
    assert values["layout"] == "original"
    assert values["num_files"] == 1
    assert values["folder"] == str(tmp_path / "a")
    assert read_model_config(tmp_path / "a").stored_dtype == "float16"


def test_a_full_vocabulary_grows_and_says_so(run, tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "full", vocab_size=259)
    out = run("convert", folder, tmp_path / "hf", "--to", "hf").out
    # 259 ids and two placeholders fit into 5 x 64 rows.
    assert "320 rows instead of 259: <image> is id 259" in out
    assert read_model_config(tmp_path / "hf").text.vocab_size == 320


def test_bad_input_is_refused(refused, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    assert "not empty" in refused("convert", tiny_folder, tmp_path / "mine", "--to", "hf")
    new = ("convert", tiny_folder, tmp_path / "out")
    assert "holds no weights" in refused("convert", tmp_path / "mine", new[2], "--to", "hf")
    assert "needs none" in refused(*new, "--to", "hf", "--base", tiny_folder)
    assert "--to" in refused(*new)
    assert "shard" in refused(*new, "--to", "hf", "--shard-size", "x")
