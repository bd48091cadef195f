"""Any error → what a request is told of it, and the border where one request ends and not all."""

import contextlib
import traceback
from collections.abc import Iterator

from llava_video.engine.job import Job
from llava_video.errors import CapacityError
from llava_video.model.memory import is_out_of_memory


@contextlib.contextmanager
def failing(job: Job) -> Iterator[None]:
    """Let an error end one request and not the step: what it raises is its own, often user code."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it becomes the request's Failed event
        # Rows hang on the frames that it passed, and whoever is told of it may keep it.
        traceback.clear_frames(error.__traceback__)
        job.fail(as_failure(error))


def as_failure(error: BaseException) -> Exception:
    """Return what a request fails with: the error, or a `CapacityError` when memory ran out."""
    if is_out_of_memory(error):
        failure = CapacityError(
            f"no memory for a step: {error}.",
            "a smaller prefill_chunk_tokens, tile_chunk or max_running, or a smaller dtype.",
        )
        failure.__cause__ = error
        return failure
    if isinstance(error, Exception):
        return error
    return CapacityError(f"the step was interrupted by {type(error).__name__}.", "ask again.")
