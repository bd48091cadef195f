"""A judge's verdict stands beside the score and changes nothing of it."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from llava_video.api import LlavaVideo
from llava_video.engine.request import Answer, Event, Finished, Request
from llava_video.errors import ConfigError
from llava_video.eval.judges import critic_judge
from llava_video.eval.open_answers import read_activitynetqa
from llava_video.eval.running import evaluate


class Says:
    """An engine that answers everything with the same words."""

    def __init__(self, text: str) -> None:
        self.text = text

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        for request in requests:
            answer = Answer(
                text=self.text,
                token_ids=(),
                finish_reason="stop",
                text_tokens=request.text_tokens,
                visual_tokens=request.visual_tokens,
                new_tokens=1,
            )
            yield Finished(request.request_id, answer)


@pytest.mark.parametrize(
    ("words", "correct", "score"),
    [("Final Score: 60", True, 60), ("Final Score: 59", False, 59), ("Hard to say.", None, None)],
)
def test_the_critic_scores_free_answers(
    oracle: LlavaVideo,
    copy: Callable[[str], Path],
    words: str,
    correct: bool | None,
    score: float | None,
) -> None:
    examples = list(read_activitynetqa(copy("activitynetqa")))
    critic = LlavaVideo(oracle.spec, Says(words))
    judge = critic_judge(critic, least=60, num_frames=2)
    report = evaluate(oracle, "activitynetqa", examples, judge=judge, num_frames=4)
    verdicts = [record.judged for record in report.records]
    assert all(verdict is not None for verdict in verdicts)
    assert {(v.correct, v.score, v.reasons) for v in verdicts if v} == {(correct, score, words)}
    assert report.overall.accuracy is not None
    assert report.overall.accuracy.value == 0.5  # as without a judge
    judged = report.overall.judged
    assert (None if judged is None else judged.value) == (None if correct is None else correct)


def test_a_judge_that_fails_is_told_and_ends_nothing(
    oracle: LlavaVideo, copy: Callable[[str], Path]
) -> None:
    examples = list(read_activitynetqa(copy("activitynetqa")))
    judge = critic_judge(LlavaVideo(oracle.spec, Says("x")), start=99)  # behind the video's end
    report = evaluate(oracle, "activitynetqa", examples, judge=judge, num_frames=4)
    assert [record.failure for record in report.records] == [None, None]
    assert all("Error: " in r.judged.reasons for r in report.records if r.judged)
    assert report.overall.judged is None


def test_the_least_score_is_one_of_the_scale(oracle: LlavaVideo) -> None:
    with pytest.raises(ConfigError, match="least"):
        critic_judge(oracle, least=101)
