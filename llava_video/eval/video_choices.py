"""Local copies of benchmarks of videos with choices → examples.

Answers are taken from the letters of the choices, so that every answer is one of them and comes
with its probability. Prompts are those of the benchmarks' own code or of lmms-eval, as each
function says; subtitles and sound are not used. Fields are named as in the files that are
published.
"""

from collections.abc import Iterator
from pathlib import Path

from llava_video.errors import ConfigError
from llava_video.eval.example import (
    Example,
    examples_of,
    known_letter,
    letter_at,
    letter_of,
    lettered,
    letters,
)
from llava_video.eval.files import annotation_files
from llava_video.eval.media import MediaIndex
from llava_video.tables import Row, read_rows

DIRECTLY = "Answer with the option's letter from the given choices directly."

# The folders of MVBench's videos, and whether a question is about a span of the video: the list in
# its notebook (OpenGVLab/Ask-Anything, video_chat2/mvbench.ipynb).
_MVBENCH = {
    "action_sequence": ("star/Charades_v1_480", True),
    "action_prediction": ("star/Charades_v1_480", True),
    "action_antonym": ("ssv2_video", False),
    "fine_grained_action": ("Moments_in_Time_Raw/videos", False),
    "unexpected_action": ("FunQA_test/test", False),
    "object_existence": ("clevrer/video_validation", False),
    "object_interaction": ("star/Charades_v1_480", True),
    "object_shuffle": ("perception/videos", False),
    "moving_direction": ("clevrer/video_validation", False),
    "action_localization": ("sta/sta_video", True),
    "scene_transition": ("scene_qa/video", False),
    "action_count": ("perception/videos", False),
    "moving_count": ("clevrer/video_validation", False),
    "moving_attribute": ("clevrer/video_validation", False),
    "state_change": ("perception/videos", False),
    "fine_grained_pose": ("nturgbd", False),
    "character_order": ("perception/videos", False),
    "egocentric_navigation": ("vlnqa", False),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", True),
    "counterfactual_inference": ("clevrer/video_validation", False),
}
_FOLDERS_OF_FRAMES = "episodic_reasoning"  # three pictures per second, a folder for each clip
_TVQA_RATE_HZ = 3.0


def read_videomme(folder: Path) -> Iterator[Example]:
    """Read Video-MME without subtitles.

    Files: `videomme/test-*.parquet` of lmms-lab/Video-MME, or its rows as JSON, and `data/*.mp4`.
    Fields: `videoID` (the file's name), `question_id`, `question`, `options` (["A. …", …]),
    `answer` (a letter), `duration` (short, medium, long), `domain`, `sub_category`, `task_type`.
    Prompt: the benchmark's own for frames alone, as its project page and lmms-eval have it.
    """
    media = MediaIndex(folder)

    def make(row: Row) -> Example:
        options = row.texts("options")
        ask = (
            "Select the best answer to the following multiple-choice question based on the video. "
            "Respond with only the letter (A, B, C, or D) of the correct option."
        )
        prompt = "\n".join([ask, row.text("question"), *options, "The best answer is:"])
        video = row.text("videoID")
        return Example(
            id=row.text("question_id"),
            cluster=video,
            footage=media.footage(f"{video}.mp4", "data", "videos"),
            prompt=prompt,
            choices=letters(options),
            answer=known_letter(row, row.text("answer"), options),
            groups=_groups(row, task="task_type", duration="duration", domain="domain"),
        )

    patterns = ("videomme/test-*.parquet", "test-*.parquet", "*.parquet", "*.json", "*.jsonl")
    for path in annotation_files(folder, patterns, "Video-MME"):
        yield from examples_of(read_rows(path), make)


def read_mvbench(folder: Path) -> Iterator[Example]:
    """Read MVBench.

    Files: `json/TASK.json` of OpenGVLab/MVBench for each of its 20 tasks, videos under `video/` in
    the folders its notebook lists. Fields: `video`, `question`, `candidates`, `answer` (the text of
    a candidate), and `start` and `end` (s) where the question is about a part. Episodic reasoning
    has folders of pictures, three per second. Prompt: lmms-eval's, "Question:… Option: (A) …".
    """
    media = MediaIndex(folder)
    for path in annotation_files(folder, ("json/*.json", "*.json"), "MVBench"):
        if path.stem not in _MVBENCH:
            raise ConfigError(f"{path} is none of MVBench's tasks.", "name a folder of its files.")
        task = path.stem
        place, has_span = _MVBENCH[task]

        def make(
            row: Row, task: str = task, place: str = place, has_span: bool = has_span
        ) -> Example:
            choices = row.texts("candidates")
            name = row.text("video")
            places = (f"video/{place}", place)
            start_s = row.number("start") if has_span else None
            end_s = row.number("end") if has_span else None
            if task == _FOLDERS_OF_FRAMES:
                footage = media.frames(
                    name, *places, rate_hz=_TVQA_RATE_HZ, start_s=start_s, end_s=end_s
                )
            else:
                footage = media.footage(name, *places, start_s=start_s, end_s=end_s)
            options = lettered(choices, "({letter}) {text}")
            return Example(
                id=f"{task}/{row.where.rpartition(' ')[2]}",
                cluster=f"{place}/{name}",
                footage=footage,
                prompt=f"Question:{row.text('question')}\nOption:\n{options}\nOnly give the best "
                "option.",
                choices=letters(choices),
                answer=letter_of(row, row.text("answer"), choices),
                groups={"task": task},
            )

        yield from examples_of(read_rows(path), make)


def read_nextqa(folder: Path) -> Iterator[Example]:
    """Read NExT-QA's questions with choices.

    Files: `MC/test-*.parquet` of lmms-lab/NExTQA, or doc-doc/NExT-QA's `test.csv` or `val.csv`;
    videos by number anywhere in the folder. Fields: `video`, `question`, `a0` to `a4`, `answer` (0
    to 4), `qid`, `type` (CW, CH, TN, TC, TP, DC, DL, DO). Prompt: lmms-eval's list of letters with
    LLaVA's sentence for choices.
    """
    media = MediaIndex(folder)

    def make(row: Row) -> Example:
        choices = tuple(row.text(f"a{idx}") for idx in range(5))
        video = row.text("video")
        return Example(
            id=f"{video}/{row.text('qid')}",
            cluster=video,
            footage=media.footage(video, "NExTVideo", "videos"),
            prompt=f"{row.text('question')}\n{lettered(choices)}\n{DIRECTLY}",
            choices=letters(choices),
            answer=letter_at(row, row.whole("answer"), choices),
            groups=_groups(row, type="type"),
        )

    patterns = ("MC/test-*.parquet", "test.csv", "val.csv", "*.parquet", "*.csv")
    for path in annotation_files(folder, patterns, "NExT-QA"):
        yield from examples_of(read_rows(path), make)


def read_mlvu(folder: Path) -> Iterator[Example]:
    """Read MLVU's questions with choices.

    Files: `json/N_TASK.json` of MLVU/MVLU, videos under `video/N_TASK/`. Fields: `video`,
    `question`, `candidates`, `answer` (the text of a candidate), `question_type`. The two tasks
    without candidates (sub-scene captions, summaries) are judged by a language model there and are
    left out. Prompt: the benchmark's own (JUNJIE99/MLVU, choice_bench.py); its system prompt is in
    the question, where every template has a place for it.
    """
    media = MediaIndex(folder)
    ask = (
        "Carefully watch this video and pay attention to every detail. Based on your observations, "
        "select the best option that accurately addresses the question."
    )
    for path in annotation_files(folder, ("json/*.json", "*.json"), "MLVU"):

        def make(row: Row, task: str = path.stem) -> Example:
            choices = row.texts("candidates")
            name = row.text("video")
            options = lettered(choices, "({letter}) {text}")
            return Example(
                id=f"{task}/{row.where.rpartition(' ')[2]}",
                cluster=name,
                footage=media.footage(name, f"video/{task}", task, "video"),
                prompt=f"{ask}\nQuestion: {row.text('question')}\nOptions:\n{options}\n"
                "Only give the best option.\nBest option: (",
                choices=letters(choices),
                answer=letter_of(row, row.text("answer"), choices),
                groups=_groups(row, task="question_type"),
            )

        rows = (row for row in read_rows(path) if row.broken or row.has("candidates"))
        yield from examples_of(rows, make)


def read_longvideobench(folder: Path) -> Iterator[Example]:
    """Read LongVideoBench without subtitles.

    Files: `lvb_val.json` of longvideobench/LongVideoBench, or the parquet of its validation split
    (`option0` to `option4`, "N/A" where there are fewer), videos under `videos/`. Fields: `id`,
    `video_path`, `video_id`, `question`, `candidates`, `correct_choice` (from 0; the test split has
    none), `duration_group`, `question_category`. Prompt: that of its own loader
    (longvideobench_dataset.py) without "Question: ", as lmms-eval asks.
    """
    media = MediaIndex(folder)

    def make(row: Row) -> Example:
        choices = row.texts("candidates") if row.has("candidates") else _options(row)
        known = row.has("correct_choice")
        return Example(
            id=row.text("id"),
            cluster=row.text("video_id", "video_path"),
            footage=media.footage(row.text("video_path"), "videos"),
            prompt=f"{row.text('question')}\n{lettered(choices)}\n{DIRECTLY}",
            choices=letters(choices),
            answer=letter_at(row, row.whole("correct_choice"), choices) if known else None,
            groups=_groups(row, category="question_category", duration="duration_group"),
        )

    patterns = ("lvb_val.json", "validation-*.parquet", "*.parquet", "lvb_*.json", "*.json")
    for path in annotation_files(folder, patterns, "LongVideoBench"):
        yield from examples_of(read_rows(path), make)


def _options(row: Row) -> tuple[str, ...]:
    return tuple(row.text(f"option{idx}") for idx in range(5) if row.has(f"option{idx}"))


def _groups(row: Row, **kinds: str) -> dict[str, str]:
    """Return the groups a row names: kind → text of the field of that kind."""
    return {kind: row.text(name) for kind, name in kinds.items() if row.has(name)}
