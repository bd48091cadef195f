"""Free answers judged by a model, where equality of texts is too strict.

A judge is any function of an example, what it is about, and an answer. LLaVA-Critic's is here; its
prompt knows the question and the video but not the right answer, so its score is another measure
than agreement with the annotation, and is reported beside it.
"""

from collections.abc import Callable
from typing import Any, Unpack

from llava_video.api import LlavaVideo
from llava_video.errors import ConfigError
from llava_video.eval.example import Example
from llava_video.eval.records import Judged
from llava_video.options import Options

# (example, what `LlavaVideo.ask` takes, answer) → verdict.
Judge = Callable[[Example, Any, str], Judged]


def critic_judge(critic: LlavaVideo, *, least: float = 60, **options: Unpack[Options]) -> Judge:
    """Return a judge that asks LLaVA-Critic for a score of 0 to 100.

    Args:
        critic: a loaded LLaVA-Critic; any model answers, and says so in warnings of its verdicts.
        least: the score from which an answer counts as right.
        **options: of its answers and of the frames it looks at.

    Raises:
        ConfigError: the least score is not 0 to 100.
    """
    if not 0 <= least <= 100:
        raise ConfigError(f"least = {least!r}.", "0 to 100.")

    def judge(example: Example, visual: Any, answer: str) -> Judged:
        verdict = critic.judge(visual, example.prompt, answer, **options)
        correct = None if verdict.score is None else verdict.score >= least
        return Judged(correct=correct, score=verdict.score, reasons=verdict.reasons)

    return judge
