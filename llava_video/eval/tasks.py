"""The table of tasks: name → what reads them. Knows no model."""

import difflib

from llava_video.errors import ConfigError
from llava_video.eval.example import Task
from llava_video.eval.open_answers import read_activitynetqa, read_nextqa_open
from llava_video.eval.own_questions import read_questions
from llava_video.eval.picture_choices import read_mmbench, read_seedbench
from llava_video.eval.small_world import read_captions, read_world
from llava_video.eval.video_choices import (
    read_longvideobench,
    read_mlvu,
    read_mvbench,
    read_nextqa,
    read_videomme,
)

TASKS = {
    task.name: task
    for task in (
        Task("questions", "this library's own files of questions", read_questions),
        Task("videomme", "Video-MME, without subtitles", read_videomme),
        Task("mvbench", "MVBench, 20 tasks", read_mvbench),
        Task("nextqa", "NExT-QA with choices", read_nextqa),
        Task("nextqa-open", "NExT-QA's open questions", read_nextqa_open),
        Task("activitynetqa", "ActivityNet-QA, open answers", read_activitynetqa),
        Task("mlvu", "MLVU with choices", read_mlvu),
        Task("longvideobench", "LongVideoBench, without subtitles", read_longvideobench),
        Task("mmbench", "MMBench, pictures", read_mmbench),
        Task("seedbench", "SEED-Bench, pictures and videos", read_seedbench),
        Task("world", "questions about clips of the small world", read_world),
        Task("world-captions", "captions of clips of the small world", read_captions),
    )
}


def find_task(name: str) -> Task:
    """Return the task of a name.

    Raises:
        ConfigError: there is none; the nearest name is in the hint.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(TASKS)}."
        raise ConfigError(f"there is no task {name!r}.", hint)
    return TASKS[name]
