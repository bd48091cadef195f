"""lmms-eval's model → this library in a process of its own.

    LMMS_EVAL_PLUGINS=llava_video.eval.lmms python -m lmms_eval --model llava_video_worker \
        --model_args pretrained=lmms-lab/LLaVA-Video-7B-Qwen2,max_frames=64 --tasks videomme

`pretrained` is the checkpoint, `python` the interpreter of this library's environment where it is
not lmms-eval's own; `device`, `dtype`, `attn`, `memory`, `quantize` and the like go to
`llava_video.load`, everything else to every question. Follows lmms-eval's "simple" interface: a
request's arguments are (context, generation arguments, function to visuals, id, task, split),
visuals are paths or PIL pictures. Only generation is there; tasks that compare likelihoods are
refused. This module is imported by lmms-eval and by nothing of this library.
"""

import atexit
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms

from llava_video.errors import ConfigError
from llava_video.eval.lmms.process import Worker

_OF_LOAD = frozenset(
    {
        "revision",
        "device",
        "dtype",
        "attn",
        "memory",
        "quantize",
        "base",
        "vision_tower",
        "template",
    }
)
# lmms-eval passes these to every model; one question is asked at a time.
_PASSED_TO_ALL = ("batch_size", "max_batch_size")


class LlavaVideoWorker(lmms):  # type: ignore[misc]  # lmms-eval has no types
    """A model of this library, behind a pipe.

    Args:
        pretrained: name or folder of the checkpoint.
        python: interpreter the worker runs in; None is this one.
        **given: keywords of `llava_video.load`, and options of every question.
    """

    is_simple = True

    def __init__(self, pretrained: str, python: str | None = None, **given: Any) -> None:
        super().__init__()
        asked = {name: value for name, value in given.items() if name not in _PASSED_TO_ALL}
        self._worker = Worker(
            pretrained,
            load={name: value for name, value in asked.items() if name in _OF_LOAD},
            options={name: value for name, value in asked.items() if name not in _OF_LOAD},
            python=python,
        )
        atexit.register(self._worker.close)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests, one after another.

        Raises:
            WorkerError: one of them cannot be answered: lmms-eval has no place for failures.
        """
        return [self._answer(*request.args) for request in requests]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: the worker tells no likelihoods.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "likelihoods are not to be had from this model.", "a task that generates."
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: tasks of several rounds are not supported.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("several rounds are not to be had from this model.", "a task of one.")

    def _answer(
        self,
        context: str,
        wanted: Mapping[str, Any],
        to_visual: Any,
        doc: Any,
        task: str,
        split: str,
    ) -> str:
        visuals = list(_flat(to_visual(self.task_dict[task][split][doc])))
        with tempfile.TemporaryDirectory() as folder:
            paths = [_path_of(visual, Path(folder, f"{i}.png")) for i, visual in enumerate(visuals)]
            answer = self._worker.ask(context, visuals=paths, options=_options_of(wanted))
        return str(answer["text"])


def _flat(visuals: Any) -> Iterable[Any]:
    if isinstance(visuals, list | tuple):
        for visual in visuals:
            yield from _flat(visual)
    elif visuals is not None:
        yield visuals


def _path_of(visual: Any, path: Path) -> str:
    """Return a visual's path; a PIL picture is written to one.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(visual, str | Path):
        return str(visual)
    if not hasattr(visual, "convert"):
        raise ConfigError(f"a visual is {type(visual).__name__}.", "paths and pictures are read.")
    visual.convert("RGB").save(path)
    return str(path)


def _options_of(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return lmms-eval's generation arguments as options; what has no meaning here is left out.

    Raises:
        ConfigError: beams are asked for.
    """
    if (wanted.get("num_beams") or 1) > 1:
        raise ConfigError(f"num_beams = {wanted['num_beams']}.", "there is no beam search; 1.")
    is_greedy = not wanted.get("do_sample", wanted.get("temperature"))
    options: dict[str, Any] = {"temperature": 0.0 if is_greedy else wanted.get("temperature", 1.0)}
    if not is_greedy and wanted.get("top_p") is not None:
        options["top_p"] = wanted["top_p"]
    if wanted.get("max_new_tokens") is not None:
        options["max_new_tokens"] = wanted["max_new_tokens"]
    until = wanted.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    return options | ({"stop": stops} if stops else {})
