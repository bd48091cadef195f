"""Small local copies of benchmarks: files of the published formats, videos whose truth is known.

Every video shows its frames' numbers, 0 to 39, and with four frames 0, 13, 26 and 39 are seen. Each
copy holds two questions about it that the oracle can answer, the first of which is annotated right
and the second wrong, so that half of the answers are right.
"""

import base64
import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from scene_maker import scene, thing

from llava_video.config import to_mapping

FIRST, LAST = "What is the first index?", "What is the last index?"
TRUE_FIRST, TRUE_LAST = "0", "39"


def place(clip: Path, *paths: Path) -> None:
    """Copy a clip to where a benchmark would keep it; a missing clip leaves an empty file."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip, path)


def write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_table(path: Path, rows: list[dict[str, Any]], separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


def write_videomme(folder: Path, clip: Path) -> None:
    place(clip, folder / "data/fFjv93ACGo8.mp4")
    rows = [
        {
            "video_id": "001",
            "duration": "short",
            "domain": "Knowledge",
            "sub_category": "Humanity & History",
            "url": "https://www.youtube.com/watch?v=fFjv93ACGo8",
            "videoID": "fFjv93ACGo8",
            "question_id": f"001-{number}",
            "task_type": "Counting Problem",
            "question": question,
            "options": ["A. 7.", "B. 0", "C. 39", "D. 40"],
            "answer": answer,
        }
        for number, question, answer in ((1, FIRST, "B"), (2, LAST, "D"))
    ]
    write_parquet(folder / "videomme/test-00000-of-00001.parquet", rows)


def write_mvbench(folder: Path, clip: Path) -> None:
    place(clip, folder / "video/star/Charades_v1_480/ZS9XR.mp4")
    place(clip, folder / "video/clevrer/video_validation/v_1.mp4")
    part = {"video": "ZS9XR.mp4", "question": FIRST, "candidates": ["5", "15"], "answer": "15"}
    whole = {"video": "v_1.mp4", "question": LAST, "candidates": ["39", "3"], "answer": "3"}
    write_json(folder / "json/action_sequence.json", [part | {"start": 0.5, "end": 1.2}])
    write_json(folder / "json/moving_count.json", [whole])


def write_nextqa(folder: Path, clip: Path) -> None:
    place(clip, folder / "NExTVideo/1164/3238737531.mp4")
    options = {"a0": "7", "a1": "0", "a2": "39", "a3": "5", "a4": "none of them"}
    size = {"video": 3238737531, "frame_count": 40, "width": 128, "height": 96}
    rows = [
        size | {"question": question, "answer": answer, "qid": qid, "type": kind} | options
        for qid, question, answer, kind in ((0, FIRST, 1, "CW"), (1, LAST, 0, "TN"))
    ]
    write_table(folder / "test.csv", rows)


def write_nextqa_open(folder: Path, clip: Path) -> None:
    place(clip, folder / "videos/3238737531.mp4")
    rows = [
        {
            "video": "3238737531",
            "question": question.rstrip("?"),
            "answer": answer,
            "qid": qid,
            "type": "DC",
            "additional_ref_answer": second,
        }
        for qid, question, answer, second in ((0, FIRST, "no number", "zero"), (1, LAST, "3", ""))
    ]
    write_parquet(folder / "OE/test-00000-of-00001.parquet", rows)


def write_activitynetqa(folder: Path, clip: Path) -> None:
    place(clip, folder / "all_test/v_1QIUV7WYKXg.mkv")
    questions = [
        {
            "video_name": "1QIUV7WYKXg",
            "question": question.rstrip("?"),
            "question_id": f"v_{number}",
        }
        for number, question in ((0, FIRST), (1, "is index 13 shown"))
    ]
    answers = [
        {"answer": "zero", "type": 7, "question_id": "v_0"},
        {"answer": "no", "type": 3, "question_id": "v_1"},
    ]
    write_json(folder / "test_q.json", questions)
    write_json(folder / "test_a.json", answers)


def write_mlvu(folder: Path, clip: Path) -> None:
    place(clip, folder / "video/1_plotQA/movie101_66.mp4")
    shared = {"video": "movie101_66.mp4", "duration": 1.33, "question_type": "plotQA"}
    rows = [
        shared | {"question": FIRST, "candidates": ["1", "0", "39", "4"], "answer": "0"},
        shared | {"question": LAST, "candidates": ["1", "0", "39", "4"], "answer": "4"},
    ]
    write_json(folder / "json/1_plotQA.json", rows)
    summary = {"video": "217.mp4", "duration": 480, "question": "Summarise.", "answer": "Long."}
    write_json(folder / "json/9_summary.json", [summary | {"question_type": "summary"}])


def write_longvideobench(folder: Path, clip: Path) -> None:
    place(clip, folder / "videos/86CxyhFV9MI.mp4")
    shared = {
        "video_id": "86CxyhFV9MI",
        "video_path": "86CxyhFV9MI.mp4",
        "subtitle_path": "86CxyhFV9MI_en.json",
        "starting_timestamp_for_subtitles": 0,
        "duration": 1.33,
        "duration_group": 15,
        "candidates": ["0", "39", "5"],
    }
    rows = [
        shared | {"id": "86CxyhFV9MI_0", "question": FIRST, "question_category": "S2E"},
        shared | {"id": "86CxyhFV9MI_1", "question": LAST, "question_category": "T3O"},
    ]
    rows[0]["correct_choice"], rows[1]["correct_choice"] = 0, 2
    write_json(folder / "lvb_val.json", rows)


def png(level: int) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (96, 64), (level, level, level)).save(held, "PNG")
    return held.getvalue()


def write_mmbench(folder: Path, clip: Path) -> None:
    """Pictures of one level: black is index 0, white is 255 to the oracle."""
    del clip
    shared = {"hint": "", "question": FIRST, "A": "255", "B": "0", "C": "", "D": ""}
    tail = {"category": "object", "l2-category": "coarse", "split": "dev"}
    rows = [
        {"index": 241}
        | shared
        | {"answer": "B", "image": base64.b64encode(png(0)).decode()}
        | tail,
        {"index": 1000241} | shared | {"answer": "B", "image": "241", "A": "0", "B": "255"} | tail,
    ]
    write_table(folder / "MMBench_DEV_EN.tsv", rows, "\t")


def write_seedbench(folder: Path, clip: Path) -> None:
    place(clip, folder / "videos/P06/cam01/P06_cereals.avi")
    (folder / "images").mkdir(parents=True)
    (folder / "images/1454426_2591111986.png").write_bytes(png(255))
    picture = {"data_id": "1454426_2591111986", "data_type": "image", "question_type_id": 5}
    video = {"data_id": "P06/cam01/P06_cereals.avi", "data_type": "video", "question_type_id": 12}
    choices = {"choice_a": "255", "choice_b": "6", "choice_c": "17", "choice_d": "2"}
    questions = [
        picture | choices | {"question": FIRST, "question_id": "101669", "answer": "A"},
        video
        | choices
        | {"question": LAST, "question_id": "v4397", "answer": "B", "segment": [3, 9]},
    ]
    write_json(folder / "SEED-Bench.json", {"questions": questions, "question_type": {}})


def write_questions(folder: Path, clip: Path) -> None:
    place(clip, folder / "clips/000017.mp4")
    questions = [
        {"question": FIRST, "type": "first", "answer": 0},
        {"question": LAST, "type": "last", "answer": "38", "choices": [38, 39]},
        {"question": "Is index 13 shown?", "type": "yes/no", "answer": True},
        # Frame 26 is at 26/30 = 0.867 s.
        {"question": "When is index 26 shown?", "type": "when", "answer": 0.4},
        {"question": "When is index 26 shown?", "type": "when", "answer": 0.3, "tolerance": 0.1},
        {"question": "Is index 14 shown?", "type": "yes/no", "answer": True},
    ]
    items = [{"id": "000017", "video": "clips/000017.mp4", "questions": questions}]
    write_json(folder / "questions.json", items)


def write_world(folder: Path, clip: Path) -> None:
    """Write two questions as `llava-video world` writes them."""
    place(clip, folder / "videos/000000.mp4")
    turns = [
        {"kind": "sign", "text": FIRST, "answer": "0", "choices": [], "seconds": None},
        {"kind": "count", "text": LAST, "answer": "38", "choices": ["38", "39"], "seconds": None},
    ]
    write_records(folder, {"train-0-000000-chat0": turns})


def write_world_captions(folder: Path, clip: Path) -> None:
    """Write two captions; what the oracle reads is no caption, but the first one's very words."""
    place(clip, folder / "videos/000000.mp4")
    turns = [
        {"kind": "short", "text": FIRST, "answer": "0", "choices": [], "seconds": None},
        {"kind": "timed", "text": LAST, "answer": "38", "choices": [], "seconds": None},
    ]
    write_records(folder, {f"train-0-000000-{turn['kind']}": [turn] for turn in turns})


def write_records(folder: Path, turns_of: dict[str, list[dict[str, Any]]]) -> None:
    """Write records of one clip that shows a red square and nothing else."""
    truth = to_mapping(scene(thing()))
    lines = [
        json.dumps({"id": name, "video": "videos/000000.mp4", "answers": turns, "truth": truth})
        for name, turns in turns_of.items()
    ]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


WRITERS = {
    "questions": write_questions,
    "videomme": write_videomme,
    "mvbench": write_mvbench,
    "nextqa": write_nextqa,
    "nextqa-open": write_nextqa_open,
    "activitynetqa": write_activitynetqa,
    "mlvu": write_mlvu,
    "longvideobench": write_longvideobench,
    "mmbench": write_mmbench,
    "seedbench": write_seedbench,
    "world": write_world,
    "world-captions": write_world_captions,
}
