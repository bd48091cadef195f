"""Pictures come from base64, bytes or files; the words are the benchmarks'."""

from collections.abc import Callable
from pathlib import Path

import eval_copies
import pytest

from llava_video.eval.picture_choices import read_mmbench, read_seedbench
from llava_video.inputs import Picture, Video


def test_mmbench(copy: Callable[[str], Path]) -> None:
    first, turned = read_mmbench(copy("mmbench"))
    assert first.prompt == (
        "What is the first index? There are several options:\nA. 255\nB. 0\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert first.footage is not None
    assert first.footage.load() == [Picture(eval_copies.png(0))]
    assert turned.footage == first.footage  # its picture is named by an index
    assert (first.cluster, turned.cluster) == ("241", "241")
    assert (first.id, turned.id) == ("241", "1000241")
    assert dict(first.groups) == {"category": "object", "ability": "coarse"}


def test_mmbench_in_parquet_with_a_hint_and_without_an_answer(tmp_path: Path) -> None:
    image = {"bytes": eval_copies.png(9), "path": None}
    row = {"index": 3, "question": "Which?", "hint": "Look.", "A": "x", "B": "y", "C": "nan"}
    more = {"answer": "nan", "category": "c", "L2-category": "l", "image": image}
    eval_copies.write_parquet(tmp_path / "en/dev-00000-of-00001.parquet", [row | more])
    (example,) = read_mmbench(tmp_path)
    assert example.prompt.startswith("Look. Which? There are several options:\nA. x\nB. y\n")
    assert (example.answer, example.choices) == (None, ("A", "B"))
    assert example.groups["ability"] == "l"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image": "not base64!" * 9}, "is no base64"),
        ({"image": "77"}, "no row 77 before it"),
        ({"image": ""}, "has no 'image'"),
        ({"B": "", "C": "z"}, "choices"),
        ({"answer": "D"}, "'D' of 2 choices"),
        ({"index": "x"}, "is no number"),
    ],
)
def test_a_broken_row_says_what_is_wrong(tmp_path: Path, changed: dict, message: str) -> None:
    row = {"index": 1, "question": "Q", "A": "a", "B": "b", "C": "", "answer": "A", "image": "QUJD"}
    eval_copies.write_table(tmp_path / "MMBench_X.tsv", [row | changed, row | {"index": 2}], "\t")
    broken, sound = read_mmbench(tmp_path)
    assert message in str(broken.trouble)
    assert sound.trouble is None


def test_seedbench(copy: Callable[[str], Path]) -> None:
    folder = copy("seedbench")
    picture, video = read_seedbench(folder)
    assert picture.prompt == (
        "What is the first index?\nA. 255\nB. 6\nC. 17\nD. 2\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert picture.footage is not None
    assert picture.footage.load() == Picture(folder / "images/1454426_2591111986.png")
    assert dict(picture.groups) == {"dimension": "5", "data": "image"}
    # Dimension 12 counts 15 frames a second: frames 3 to 9 are 0.2 to 0.6 s, and not 3 to 9 s.
    assert video.footage is not None
    path = folder / "videos/P06/cam01/P06_cereals.avi"
    assert video.footage.load() == Video(path, start=0.2, end=0.6)


def test_seedbench_of_dimension_11_counts_seconds(copy: Callable[[str], Path]) -> None:
    folder = copy("seedbench")
    text = (folder / "SEED-Bench.json").read_text()
    (folder / "SEED-Bench.json").write_text(text.replace("12", "11"))
    video = list(read_seedbench(folder))[1]
    assert video.footage is not None
    assert (video.footage.start_s, video.footage.end_s) == (3.0, 9.0)


def test_seedbench_in_parquet_shows_videos_as_pictures(tmp_path: Path) -> None:
    images = [{"bytes": eval_copies.png(level), "path": None} for level in (1, 2)]
    row = {"image": images, "question": "Q", "answer": "C", "question_id": "1", "data_id": "d"}
    choices = {f"choice_{letter}": letter for letter in "abcd"}
    more = {"data_type": "video", "question_type_id": 10, "segment": None}
    eval_copies.write_parquet(tmp_path / "data/test-0.parquet", [row | choices | more])
    (example,) = read_seedbench(tmp_path)
    assert example.footage is not None
    assert [p.address for p in example.footage.load()] == [eval_copies.png(1), eval_copies.png(2)]
