"""Every task reads its own format, and the oracle's answers are right where the annotation is."""

from collections.abc import Callable
from pathlib import Path

import eval_copies
import pytest

from llava_video.api import LlavaVideo
from llava_video.errors import ConfigError
from llava_video.eval.running import evaluate
from llava_video.eval.tasks import TASKS, find_task

# Of the six questions of our own, the first, third and fourth are annotated right.
RIGHT = dict.fromkeys(TASKS, (1, 2)) | {"questions": (3, 6)}


@pytest.mark.parametrize("name", TASKS)
def test_half_of_each_copy_is_right(name: str, copy: Callable, oracle: LlavaVideo) -> None:
    examples = list(find_task(name).read(copy(name)))
    report = evaluate(oracle, name, examples, num_frames=4)
    right, num_examples = RIGHT[name]
    assert report.failures == {}
    assert report.overall.accuracy is not None
    assert report.overall.accuracy.num_examples == num_examples
    assert sum(record.correct is True for record in report.records) == right
    assert all(record.groups for record in report.records)
    assert [record.given for record in report.records if not record.given] == []


@pytest.mark.parametrize("name", TASKS)
def test_an_empty_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no annotations"):
        list(find_task(name).read(tmp_path))
    with pytest.raises(ConfigError, match="is no folder"):
        list(find_task(name).read(tmp_path / "nothing"))


def test_every_task_is_tested_and_found() -> None:
    assert set(eval_copies.WRITERS) == set(TASKS)
    assert find_task("mlvu").about.startswith("MLVU")
    with pytest.raises(ConfigError, match=r"no task 'mvbnch'.*did you mean mvbench\?"):
        find_task("mvbnch")
    with pytest.raises(ConfigError, match="known: questions, videomme"):
        find_task("zzz")
