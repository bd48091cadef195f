"""The settings of a run → its hands: threads, processes or actors of a cluster.

Imports only what the chosen kind needs, so that a run whose model is elsewhere loads no torch.
"""

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava_video.archive.crew import Crew, Staff
from llava_video.archive.hands import Hands, Job, NamedModel
from llava_video.archive.settings import ArchiveSettings
from llava_video.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llava_video.api import LlavaVideo

_ANY_GPU = ("auto", "cuda", "cpu")


def hands_for(
    model: "str | Path | LlavaVideo | Callable[[], LlavaVideo]",
    settings: ArchiveSettings,
    options: "Mapping[str, Any]",
    stack: ExitStack,
    stopping: threading.Event,
) -> Hands:
    """Return hands that can be given units; the stack ends them.

    Args:
        model: a name, a loaded model, or what loads one.
        settings: the run's.
        options: of every request.
        stack: closes what was opened.
        stopping: gives up the wait for a model.

    Raises:
        ConfigError: a loaded model, or a GPU by its number, where several processes load one.
        BackendMissingError: without Ray, or without a way to start processes.
        LlavaVideoError: as `load`.
    """
    if isinstance(model, str | Path):
        model = NamedModel(model)
    if settings.ray is None and not settings.workers:
        return _in_threads(model, settings, options, stack)
    if not callable(model):
        raise ConfigError(
            "a loaded model cannot be handed to other processes.", "name it, and each loads it."
        )
    _check_device(model)
    job = Job(settings=settings, options=options, model=model)
    if settings.ray is None:
        from llava_video.archive.in_processes import Processes

        crew = _crew(Processes(job, settings.workers), settings.workers, settings, stack)
    else:
        crew = _on_ray(job, settings.ray, stack)
    crew.begin(stopping)
    return crew


def _in_threads(
    model: "LlavaVideo | Callable[[], LlavaVideo]",
    settings: ArchiveSettings,
    options: "Mapping[str, Any]",
    stack: ExitStack,
) -> Hands:
    from llava_video.archive.in_threads import ThreadHands
    from llava_video.archive.workplace import Workplace

    loaded = stack.enter_context(model()) if callable(model) else model
    hands = ThreadHands(Workplace(loaded, settings, options), settings.in_flight)
    stack.callback(hands.close)
    return hands


def _on_ray(job: Job, address: str, stack: ExitStack) -> Crew:
    from llava_video.archive.on_ray import RayActors, connected

    settings = job.settings
    cluster = stack.enter_context(connected(address))
    gpus = settings.ray_gpus
    if gpus is None:
        gpus = 1.0 if cluster.get("GPU") and not job.is_served else 0.0
    for name, each in (("GPU", gpus), ("CPU", settings.ray_cpus)):
        # Ray would wait for a machine that has so many, without a word.
        if each > cluster[f"most {name}"]:
            raise ConfigError(
                f"no machine of the cluster has {each:g} {name}s: at most "
                f"{cluster[f'most {name}']:g}.",
                f"a smaller ray_{name.lower()}s.",
            )
    number = settings.workers or int(cluster.get("GPU", 0) / gpus if gpus else cluster["nodes"])
    return _crew(RayActors(job, gpus=gpus, cpus=settings.ray_cpus), number, settings, stack)


def _crew(staff: Staff, number: int, settings: ArchiveSettings, stack: ExitStack) -> Crew:
    crew = Crew(staff, number, settings.in_flight)
    stack.callback(crew.close)
    return crew


def _check_device(model: object) -> None:
    keywords = model.keywords if isinstance(model, NamedModel) else {}
    device = keywords.get("device", "auto")
    if device not in _ANY_GPU:
        raise ConfigError(
            f"device = {device!r} for workers that take a GPU each.",
            "device = 'auto'; CUDA_VISIBLE_DEVICES says which GPUs.",
        )
