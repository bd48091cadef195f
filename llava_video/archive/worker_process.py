"""A worker process of an archive from within: a model is loaded, units come, outcomes go.

It ends when the line to its parent does, so none outlives a run that was killed. Knows no ledger.
"""

import os
import pickle
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any, Final

from llava_video.archive.hands import Job, as_ours
from llava_video.archive.in_threads import Threads
from llava_video.archive.workplace import Workplace

_TICK_S: Final = 1.0


def main(words: Mapping[str, Any]) -> None:
    """Work until the parent is gone.

    Args:
        words: "line", the descriptor of the socket to the parent, and "gpu", whose turn it is; None
            where no model is loaded, nor torch.
    """
    line = Connection(words["line"])
    if words["gpu"] is not None:
        take_own_gpu(words["gpu"])
    with ExitStack() as stack:
        try:
            job: Job = pickle.loads(line.recv_bytes())
            # Before the model is loaded: that may take minutes, and the parent may be gone by then.
            coming = Future[Threads]()
            threading.Thread(target=_listen, args=(line, coming), daemon=True).start()
            place = Workplace(stack.enter_context(job.model()), job.settings, job.options)
        except Exception as error:  # noqa: BLE001 - a process's border: the parent raises it
            line.send(("gone", "could not load its model", as_ours(error)))
            return
        line.send(("ready", dict(place.facts), place.maker))
        threads = Threads(place, job.settings.in_flight)
        coming.set_result(threads)
        while True:
            found = threads.get(_TICK_S)
            if found is None:
                line.send(("alive",))
                continue
            outcome = found[1]
            if outcome.of_place == "device" and outcome.error is not None:
                # Another process may use the device; if not, deaths without a result end the run.
                line.send(("gone", f"has lost its device ({outcome.error.message})", None))
                os._exit(1)
            line.send(("done", *found, place.busy))


def _listen(line: Connection, coming: Future[Threads]) -> None:
    """Pass units on; a line that has ended ends the process, whatever it is doing."""
    try:
        while True:
            message = line.recv()
            if message is None:
                coming.result().place.finish()
            else:
                coming.result().put(*message)
    finally:
        os._exit(0)


def take_own_gpu(number: int) -> None:
    """Leave this process one of the GPUs, before CUDA is begun.

    Args:
        number: of the worker; GPUs are shared out in turn.
    """
    import torch

    count = torch.cuda.device_count()
    if count:
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = named.split(",") if named else [str(idx) for idx in range(count)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number % count]
