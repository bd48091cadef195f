"""A step of static shapes → the same step as a CUDA graph, from its second run on.

The first run of a key is eager: it compiles kernels and settles libraries, which a capture must
not. The second is captured, without being run, and replayed; so is every later one. All graphs of
an engine share one private pool, for no two of them run at once and nothing they leave in it is
read later. Knows no model.
"""

import logging
from collections.abc import Callable, Hashable
from typing import Protocol

import torch

from llava_video.model.memory import is_out_of_memory

logger = logging.getLogger(__name__)


class Graph(Protocol):
    """A captured step."""

    def replay(self) -> None:
        """Run it again."""
        ...


class StepGraphs:
    """The captured steps of one engine.

    Args:
        capture: captures a step without running it; None runs every step eagerly.
    """

    def __init__(self, capture: Callable[[Callable[[], None]], Graph] | None) -> None:
        self._capture = capture
        self._has_run: set[Hashable] = set()
        self._graphs: dict[Hashable, Graph] = {}

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Run a step.

        Args:
            key: steps of one key launch the same work on the same tensors, and return nothing.
            step: launches it.
        """
        graph = self._graphs.get(key)
        if graph is None and key in self._has_run:
            graph = self._captured(key, step)
        if graph is not None:
            graph.replay()
            return
        step()
        if self._capture is not None:
            self._has_run.add(key)

    def forget(self, is_gone: Callable[[Hashable], bool]) -> None:
        """Drop the graphs of keys whose tensors are gone."""
        self._has_run = {key for key in self._has_run if not is_gone(key)}
        self._graphs = {key: graph for key, graph in self._graphs.items() if not is_gone(key)}

    def _captured(self, key: Hashable, step: Callable[[], None]) -> Graph | None:
        if self._capture is None:
            return None
        try:
            graph = self._capture(step)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            # Nothing has run. Without memory the caller frees some and tries again, eagerly; else
            # the eager step is still to come here. It gives the same tokens.
            if is_out_of_memory(error):
                self._has_run.discard(key)
                raise
            logger.warning("no CUDA graph can be captured, steps run without: %s", error)
            self._capture = None
            return None
        self._graphs[key] = graph
        return graph


def cuda_capture(device: torch.device) -> Callable[[Callable[[], None]], Graph]:
    """Return what captures steps on a GPU, all of them in one private pool of memory."""
    pool = torch.cuda.graph_pool_handle()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's own

    def capture(step: Callable[[], None]) -> Graph:
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: others may load a model or free memory meanwhile.
        with (
            torch.cuda.device(device),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            step()
        return graph

    return capture
