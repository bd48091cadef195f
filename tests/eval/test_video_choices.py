"""What is asked is word for word what the benchmarks ask, of the right video and span."""

from collections.abc import Callable
from pathlib import Path

import eval_copies
import pytest

from llava_video.errors import ConfigError
from llava_video.eval.video_choices import (
    read_longvideobench,
    read_mlvu,
    read_mvbench,
    read_nextqa,
    read_videomme,
)


def test_videomme(copy: Callable[[str], Path]) -> None:
    folder = copy("videomme")
    first, second = read_videomme(folder)
    assert first.prompt == (
        "Select the best answer to the following multiple-choice question based on the video. "
        "Respond with only the letter (A, B, C, or D) of the correct option.\n"
        "What is the first index?\nA. 7.\nB. 0\nC. 39\nD. 40\nThe best answer is:"
    )
    assert (first.id, first.choices, first.answer) == ("001-1", ("A", "B", "C", "D"), "B")
    assert first.cluster == second.cluster == "fFjv93ACGo8"
    assert first.footage is not None
    assert first.footage.path == folder / "data/fFjv93ACGo8.mp4"
    groups = {"task": "Counting Problem", "duration": "short", "domain": "Knowledge"}
    assert dict(first.groups) == groups


def test_mvbench(copy: Callable[[str], Path]) -> None:
    folder = copy("mvbench")
    sequence, count = read_mvbench(folder)
    assert sequence.prompt == (
        "Question:What is the first index?\nOption:\n(A) 5\n(B) 15\nOnly give the best option."
    )
    assert (sequence.id, sequence.answer) == ("action_sequence/1", "B")
    assert sequence.footage is not None
    assert (sequence.footage.start_s, sequence.footage.end_s) == (0.5, 1.2)
    assert count.footage is not None
    assert count.footage.path == folder / "video/clevrer/video_validation/v_1.mp4"
    assert (count.footage.start_s, count.footage.end_s) == (None, None)
    assert dict(count.groups) == {"task": "moving_count"}


def test_mvbench_reads_folders_of_frames(tmp_path: Path) -> None:
    frames = tmp_path / "video/tvqa/frames_fps3_hq/met_s03e09_seg02"
    frames.mkdir(parents=True)
    for idx in range(1, 8):
        (frames / f"{idx:05d}.jpg").write_bytes(eval_copies.png(idx))
    row = {"video": frames.name, "question": "Why?", "candidates": ["a", "b"], "answer": "a"}
    span = {"start": 0.5, "end": 1.5}
    eval_copies.write_json(tmp_path / "json/episodic_reasoning.json", [row | span])
    (example,) = read_mvbench(tmp_path)
    assert example.footage is not None
    # Three a second from 0 s: of 0.5 to 1.5 s those at 2/3, 1 and 4/3 s.
    assert example.footage.load()[1].tolist() == pytest.approx([2 / 3, 1.0, 4 / 3])
    eval_copies.write_json(tmp_path / "json/other_task.json", [row])
    with pytest.raises(ConfigError, match="none of MVBench's tasks"):
        list(read_mvbench(tmp_path))


def test_nextqa(copy: Callable[[str], Path]) -> None:
    folder = copy("nextqa")
    first, second = read_nextqa(folder)
    assert first.prompt == (
        "What is the first index?\nA. 7\nB. 0\nC. 39\nD. 5\nE. none of them\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert (first.id, first.answer, second.answer) == ("3238737531/0", "B", "A")
    assert first.footage is not None
    assert first.footage.path == folder / "NExTVideo/1164/3238737531.mp4"
    assert dict(second.groups) == {"type": "TN"}


def test_nextqa_counts_answers_from_nought(copy: Callable[[str], Path]) -> None:
    folder = copy("nextqa")
    text = (folder / "test.csv").read_text()
    (folder / "test.csv").write_text(text.replace("index?,1,", "index?,5,"))
    first, _ = read_nextqa(folder)
    assert first.trouble is not None
    assert "number 5 of 5" in first.trouble.message


def test_mlvu_leaves_out_what_has_no_choices(copy: Callable[[str], Path]) -> None:
    first, second = read_mlvu(copy("mlvu"))
    assert first.prompt == (
        "Carefully watch this video and pay attention to every detail. Based on your observations, "
        "select the best option that accurately addresses the question.\n"
        "Question: What is the first index?\nOptions:\n(A) 1\n(B) 0\n(C) 39\n(D) 4\n"
        "Only give the best option.\nBest option: ("
    )
    assert (first.id, first.answer) == ("1_plotQA/1", "B")
    assert (second.id, second.answer, second.cluster) == ("1_plotQA/2", "D", "movie101_66.mp4")
    assert dict(first.groups) == {"task": "plotQA"}


def test_longvideobench(copy: Callable[[str], Path]) -> None:
    first, second = read_longvideobench(copy("longvideobench"))
    assert first.prompt == (
        "What is the first index?\nA. 0\nB. 39\nC. 5\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert (first.answer, second.answer) == ("A", "C")
    assert dict(first.groups) == {"category": "S2E", "duration": "15"}


def test_longvideobench_in_parquet_and_without_answers(tmp_path: Path) -> None:
    row = {"id": "a_0", "video_id": "a", "video_path": "a.mp4", "question": "Who?"}
    options = {"option0": "x", "option1": "y", "option2": "N/A", "option3": "N/A", "option4": "N/A"}
    eval_copies.write_parquet(tmp_path / "validation-00000-of-00001.parquet", [row | options])
    (example,) = read_longvideobench(tmp_path)
    assert (example.choices, example.answer) == (("A", "B"), None)


def test_what_is_missing_or_broken_is_told_of_its_own_question(
    copy: Callable[[str], Path],
) -> None:
    folder = copy("mlvu")
    row = {"video": "gone.mp4", "question": "Q?", "candidates": ["a", "b"], "answer": "a"}
    rows = [row, row | {"answer": "c"}, {"candidates": ["a"]}, "text"]
    eval_copies.write_json(folder / "json/1_plotQA.json", rows)
    lost, wrong, bare, no_row = read_mlvu(folder)
    assert (lost.answer, lost.prompt[:9]) == ("A", "Carefully")  # it counts, as a failure
    assert "gone.mp4 is not in" in str(lost.trouble)
    assert "'c' is 0 of the choices" in str(wrong.trouble)
    assert "1_plotQA.json, item 3 has no 'video'" in str(bare.trouble)
    assert "is no object" in str(no_row.trouble)
