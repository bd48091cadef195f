"""Local copies of benchmarks whose answers are free → examples.

As `video_choices.py`, with answers that are texts and compared as such (`scoring.py`), or by a
judge.
"""

from collections.abc import Iterator
from pathlib import Path

from llava_video.errors import ConfigError
from llava_video.eval.example import Example, examples_of
from llava_video.eval.files import annotation_files
from llava_video.eval.media import MediaIndex
from llava_video.tables import Row, read_rows

BRIEFLY = "Answer the question using a single word or phrase."

# dataset/README.md of MILVLG/activitynet-qa.
_ACTIVITYNET_TYPES = (
    "motion",
    "spatial relation",
    "temporal relation",
    "yes/no",
    "color",
    "object",
    "location",
    "number",
    "other",
)


def read_activitynetqa(folder: Path) -> Iterator[Example]:
    """Read ActivityNet-QA.

    Files: `test_q.json` and `test_a.json` of MILVLG/activitynet-qa (or val), joined by
    `question_id`, or the parquet of lmms-lab/ActivityNetQA, which has both; videos `v_NAME.mp4`,
    `.mkv` or `.webm`. Fields: `video_name`, `question` (without its mark), `question_id`, `answer`
    (a word or two), `type` (0 to 8). The benchmark's own measure is exact equality; a judge is what
    most papers report. Prompt: lmms-eval's.
    """
    media = MediaIndex(folder)

    def make(row: Row) -> Example:
        kind = row.whole("type")
        if not 0 <= kind < len(_ACTIVITYNET_TYPES):
            raise ConfigError(f"{row.where}: type = {kind}.", "0 to 8.")
        video = row.text("video_name")
        question = row.text("question").rstrip("?").rstrip()
        return Example(
            id=row.text("question_id"),
            cluster=video,
            footage=media.footage(f"v_{video}", "all_test", "videos"),
            prompt=f"{question}? {BRIEFLY}",
            answer=row.text("answer"),
            groups={"type": _ACTIVITYNET_TYPES[kind]},
        )

    patterns = ("test_q.json", "val_q.json", "**/test-*.parquet", "**/*.parquet")
    for path in annotation_files(folder, patterns, "ActivityNet-QA"):
        joined = path.suffix == ".json"
        yield from examples_of(_with_answers(path) if joined else read_rows(path), make)


def read_nextqa_open(folder: Path) -> Iterator[Example]:
    """Read NExT-QA's open questions.

    Files: `OE/test-*.parquet` of lmms-lab/NExTQA, or doc-doc/NExT-OE's `test.csv`. Fields: `video`,
    `question`, `answer`, `qid`, `type`, and `additional_ref_answer` where a second answer counts.
    The benchmark's own measure is WUPS, which needs WordNet and is not computed here: what is
    reported is equality after normalisation, a lower number. Prompt: LLaVA's for short answers.
    """
    media = MediaIndex(folder)

    def make(row: Row) -> Example:
        video = row.text("video")
        second = "additional_ref_answer"
        return Example(
            id=f"{video}/{row.text('qid')}",
            cluster=video,
            footage=media.footage(video, "NExTVideo", "videos"),
            prompt=f"{row.text('question').rstrip('?').rstrip()}? {BRIEFLY}",
            answer=row.text("answer"),
            other_answers=(row.text(second),) if row.has(second) else (),
            groups={"type": row.text("type")},
        )

    patterns = ("OE/test-*.parquet", "test.csv", "val.csv", "*.parquet", "*.csv")
    for path in annotation_files(folder, patterns, "NExT-QA's open questions"):
        yield from examples_of(read_rows(path), make)


def _with_answers(questions: Path) -> Iterator[Row]:
    """Join a file of questions with that of their answers; a question without one says so."""
    path = questions.with_name(questions.name.replace("_q.", "_a."))
    answers = {row.text("question_id"): row for row in read_rows(path) if row.has("question_id")}
    for row in read_rows(questions):
        found = answers.get(row.text("question_id")) if row.has("question_id") else None
        if found is None and not row.broken:
            yield Row(row.where, broken=f"{path.name} has no answer to it.")
        else:
            yield Row(row.where, {**row.values, **(found.values if found else {})}, row.broken)
