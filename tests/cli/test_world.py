"""`llava-video world`: what it writes, what it says, and what it refuses."""

from pathlib import Path

from llava_video.world.dataset import read_records

_TINY = "sizes_px: [[48, 48]]\nrates_hz: [2.0]\nlengths_s: [4.0]\n"


def test_a_folder_is_written(run, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(_TINY)
    folder = tmp_path / "out"
    outcome = run("world", folder, "--clips", "2", "--seed", "3", "--config", config)
    assert (outcome.status, outcome.err) == (0, "")
    found = list(read_records(folder / "train.jsonl"))
    num_turns = sum(len(record["answers"]) for record in found)
    assert outcome.out == (
        f"{folder / 'train.jsonl'}: 2 clips, {len(found)} records, {num_turns} answers.\n"
    )
    assert {record["truth"]["height_px"] for record in found} == {48}


def test_a_split_has_its_own_file(run, tmp_path: Path) -> None:
    assert run("world", tmp_path / "a", "--clips", "1", "--split", "val").status == 0
    assert (tmp_path / "a" / "val.jsonl").is_file()


def test_pairs_of_answers_beside_it(run, tmp_path: Path) -> None:
    outcome = run("world", tmp_path, "--clips", "1", "--split", "val", "--preferences")
    pairs = (tmp_path / "val_preferences.jsonl").read_text().splitlines()
    assert outcome.out.splitlines()[1] == (
        f"{tmp_path / 'val_preferences.jsonl'}: {len(pairs)} pairs."
    )


def test_bad_input_is_refused(refused, run, tmp_path: Path) -> None:
    new = ("world", tmp_path / "new")
    assert "heldout" in refused(*new, "--split", "heldot")
    assert "at least 1" in refused(*new, "--clips", "0")
    bad = tmp_path / "bad.yaml"
    bad.write_text("nose: 3\n")
    assert "did you mean noise?" in refused(*new, "--config", bad)
    (tmp_path / "tiny.yaml").write_text(_TINY)
    tiny = ("--clips", "1", "--config", tmp_path / "tiny.yaml")
    assert run("world", tmp_path / "old", *tiny).status == 0
    assert "seed 0" in refused("world", tmp_path / "old", *tiny, "--seed", "1")
