"""The table says what the report holds."""

from collections.abc import Callable
from pathlib import Path

from llava_video.api import LlavaVideo
from llava_video.eval.own_questions import read_questions
from llava_video.eval.report_table import report_lines
from llava_video.eval.running import evaluate
from llava_video.eval.settings import EvalSettings


def test_the_table_of_planted_truth(oracle: LlavaVideo, copy: Callable[[str], Path]) -> None:
    folder = copy("questions")
    examples = list(read_questions(folder))
    plain = "\n".join(report_lines(evaluate(oracle, "questions", examples, num_frames=4)))
    assert "noise" not in plain
    assert "failed" not in plain
    (folder / "clips/000017.mp4").rename(folder / "clips/gone.mp4")
    lost = next(iter(read_questions(folder)))
    examples = [lost, *examples[1:]]
    examples = [e for e in examples if e.trouble or e.choices]
    (folder / "clips/gone.mp4").rename(folder / "clips/000017.mp4")
    report = evaluate(
        oracle, "questions", examples, settings=EvalSettings(noise=True), num_frames=4
    )
    lines = list(report_lines(report))
    heads = lines[0].split()
    assert heads[:3] == ["n", "videos", "accuracy"]
    assert heads[-3:] == ["noise", "exact", "failed"]
    # Of the four, the one with a lost video is wrong, and two of the others are.
    assert lines[1].split()[:4] == ["questions", "4", "1", "25.0"]
    assert "  type: yes/no" in [line[:14] for line in lines]
    assert any(line.startswith("failed    SourceError 1; of those answered 33.3") for line in lines)
    assert any("4 frames" in line and "visual tokens" in line for line in lines)
    assert lines[-1].split() == ["0.90", "to", "1.00", "3", "100.0", "33.3"]


def test_a_benchmark_without_answers_has_dashes(
    oracle: LlavaVideo, copy: Callable[[str], Path]
) -> None:
    import dataclasses

    examples = [
        dataclasses.replace(example, answer=None)
        for example in read_questions(copy("questions"))
        if not example.choices
    ]
    lines = list(report_lines(evaluate(oracle, "questions", examples, num_frames=4)))
    assert lines[1].split() == ["questions", "0", "0", "-", "-", "-"]
