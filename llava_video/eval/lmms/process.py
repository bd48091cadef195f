"""A worker in a process of its own: questions in, answers out, one at a time.

lmms-eval pins packages that this library wants newer, and the other way round, so each may have an
environment of its own: `python` names the interpreter the worker runs in. Needs no torch itself.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Self

from llava_video.errors import CapacityError, LlavaVideoError

_GRACE_S = 10.0


class WorkerError(LlavaVideoError, RuntimeError):
    """The worker could not answer; the message has its own error."""


class Worker:
    """A model in another process; a context manager.

    Args:
        model: name or folder of the checkpoint.
        load: keywords of `llava_video.load`.
        options: of every question.
        python: interpreter of the environment this library is installed in; None is this one.

    Raises:
        WorkerError: the model cannot be loaded. CapacityError: the process cannot be started.
    """

    def __init__(
        self,
        model: str,
        *,
        load: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        python: str | None = None,
    ) -> None:
        settings = {"model": model, "load": dict(load or {}), "options": dict(options or {})}
        command = [python or sys.executable, "-m", "llava_video.eval.worker", json.dumps(settings)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )
        except OSError as cause:
            raise CapacityError(
                f"{command[0]} cannot be started: {cause}.", "name another python=."
            ) from cause
        self._num_asked = 0
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def ask(self, prompt: str, **question: Any) -> dict[str, Any]:
        """Ask one question.

        Args:
            prompt: the question.
            **question: "visuals" (paths) and "options", as `worker.py` reads them.

        Returns:
            "text", "frames", "visual_tokens", "text_tokens", "new_tokens" and "warnings".

        Raises:
            WorkerError: it was not answered, or the worker has ended.
        """
        self._num_asked += 1
        line = json.dumps({"id": self._num_asked, "prompt": prompt, **question})
        stdin = self._process.stdin
        try:
            if stdin is not None:
                stdin.write(line + "\n")
                stdin.flush()
        except OSError as cause:
            raise self._ended() from cause
        return self._read()

    def close(self) -> None:
        """End the worker: it has nothing left to answer when its input ends."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except OSError:
                    continue  # what was not sent has no reader any more
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        failure = answer.get("failure")
        if failure is not None:
            raise WorkerError(f"{failure['kind']}: {failure['message']}", failure["hint"])
        return answer

    def _ended(self) -> WorkerError:
        try:
            status: int | None = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            status = None
        hint = "what it wrote to stderr stands above."
        return WorkerError(f"the worker ended with status {status}.", hint)
