"""Shards, frames and tokens → bars on stderr, one per stage, over all requests under way.

Knows neither what a video is nor who runs.
"""

import sys
from typing import Any

import click

_BAR = "{desc:<24}{bar:30} {n_fmt}/{total_fmt} {unit} [{elapsed}]"
STAGES = {
    "vision": ("watching", "frames"),
    "prefill": ("reading", "tokens"),
    "generate": ("writing", "tokens"),
}


class Progress:
    """Bars that appear when their stage begins and leave nothing behind.

    Args:
        is_on: whether anything is drawn.
    """

    def __init__(self, *, is_on: bool = False) -> None:
        self.is_on = is_on
        self._has_ended = False
        self._bars: dict[str, Any] = {}
        # stage → request → (done, total)
        self._counts: dict[str, dict[int, tuple[int, int]]] = {}

    def on_shard(self, num_done: int, num_shards: int) -> None:
        """Show how much of the weights is loaded."""
        self._show("loading", "shards", num_done, num_shards)
        if num_done == num_shards:
            self.close()

    def on_tensor(self, num_done: int, num_tensors: int) -> None:
        """Show how much of a checkpoint is written."""
        self._show("writing", "tensors", num_done, num_tensors)
        if num_done == num_tensors:
            self.close()

    def on_example(self, num_done: int, num_examples: int) -> None:
        """Show how much of a data set was looked into."""
        self._show("checking", "examples", num_done, num_examples)
        if num_done == num_examples:
            self.close()

    def on_step(self, num_done: int, num_steps: int) -> None:
        """Show how far the training is."""
        self._show("training", "steps", num_done, num_steps)

    def on_event(self, event: Any) -> None:
        """Show how far the requests are; events that are no progress change nothing."""
        stage = getattr(event, "stage", None)
        if not self.is_on or stage not in STAGES:
            return
        counts = self._counts.setdefault(stage, {})
        counts[event.request_id] = (event.done, event.total)
        words, unit = STAGES[stage]
        done, total = (sum(column) for column in zip(*counts.values(), strict=True))
        self._show(words, unit, done, total)

    def on_video(self, num_done: int, num_videos: int) -> None:
        """Show how many videos are finished; one alone needs no bar."""
        if num_videos > 1:
            self._show("videos", "done", num_done, num_videos)

    def on_answer(self, num_done: int, num_questions: int) -> None:
        """Show how many questions of an evaluation are answered."""
        self._show("answered", "questions", num_done, num_questions)

    def write(self, text: str) -> None:
        """Write a line to stderr above the bars."""
        if self._bars:
            from tqdm import tqdm

            tqdm.write(text if sys.stderr.isatty() else click.unstyle(text), file=sys.stderr)
        else:
            click.echo(text, err=True)

    def end(self) -> None:
        """Take the bars away for good: what follows is written where they would be."""
        self.close()
        self._has_ended = True

    def close(self) -> None:
        """Take the bars away, until there is news."""
        for bar in reversed(self._bars.values()):
            bar.close()
        self._bars.clear()
        self._counts.clear()

    def _show(self, words: str, unit: str, done: int, total: int) -> None:
        if not self.is_on or self._has_ended:
            return
        from tqdm import tqdm  # 50 ms that `--help` need not pay

        if words not in self._bars:
            self._bars[words] = tqdm(
                desc=words, unit=unit, total=total, file=sys.stderr, leave=False, bar_format=_BAR
            )
        bar = self._bars[words]
        bar.total = total
        bar.update(done - bar.n)  # draws at most ten times a second
