"""Open questions are joined with their answers and asked for a word or a phrase."""

from collections.abc import Callable
from pathlib import Path

import eval_copies

from llava_video.eval.open_answers import read_activitynetqa, read_nextqa_open


def test_activitynetqa(copy: Callable[[str], Path]) -> None:
    folder = copy("activitynetqa")
    first, second = read_activitynetqa(folder)
    assert first.prompt == (
        "What is the first index? Answer the question using a single word or phrase."
    )
    assert (first.id, first.answer, first.choices) == ("v_0", "zero", ())
    assert first.footage is not None
    assert first.footage.path == folder / "all_test/v_1QIUV7WYKXg.mkv"
    assert [dict(e.groups) for e in (first, second)] == [{"type": "number"}, {"type": "yes/no"}]


def test_a_question_without_an_answer_says_so(copy: Callable[[str], Path]) -> None:
    folder = copy("activitynetqa")
    answers = [{"answer": "no", "type": 9, "question_id": "v_1"}]
    eval_copies.write_json(folder / "test_a.json", answers)
    first, second = read_activitynetqa(folder)
    assert "test_a.json has no answer to it" in str(first.trouble)
    assert "type = 9" in str(second.trouble)


def test_activitynetqa_in_parquet(tmp_path: Path) -> None:
    row = {"video_name": "x", "question": "is it day", "question_id": "x_1", "answer": "yes"}
    path = tmp_path / "Generation/test-00000-of-00001.parquet"
    eval_copies.write_parquet(path, [row | {"type": "3"}])
    (example,) = read_activitynetqa(tmp_path)
    assert (example.answer, dict(example.groups)) == ("yes", {"type": "yes/no"})


def test_nextqa_open(copy: Callable[[str], Path]) -> None:
    first, second = read_nextqa_open(copy("nextqa-open"))
    assert first.prompt == (
        "What is the first index? Answer the question using a single word or phrase."
    )
    assert (first.answer, first.other_answers) == ("no number", ("zero",))
    assert second.other_answers == ()
