"""Which request may begin: its memory is reserved to its end, or it waits, or it never fits.

The rows of prompts that are fused with their frames are held one prompt at a time (`stepper.py`):
beside the cache, the limit leaves room for the largest of those that are not read yet.

Kept prefixes give way before anyone waits or fails; the prefix a request would itself use goes
last. Where answers are written in groups, one for each slab, a slab that is made for one request is
made for those that wait behind it too, and for a few questions about the same visuals. Knows no
step.
"""

from collections.abc import Iterable

from llava_video.engine.arena import Arena
from llava_video.engine.job import Job
from llava_video.engine.prefixes import KeptPrefixes
from llava_video.errors import CapacityError, ConfigError

# A slab that was made for one long request has this share of an ordinary slab beside it: by default
# 2,048 tokens, three more questions with answers of 512.
_SPARE_SHARE = 4


class Admission:
    """Reserves what requests need.

    Args:
        arena: where.
        prefixes: what ended requests left there.
        is_grouped: whether requests of one slab are written together.
    """

    def __init__(self, arena: Arena, prefixes: KeptPrefixes, *, is_grouped: bool = False) -> None:
        self._arena = arena
        self._prefixes = prefixes
        self._is_grouped = is_grouped

    def admit(self, job: Job, *, may_wait: bool, behind: Iterable[Job] = ()) -> bool:
        """Reserve all a request will ever need; return whether it may begin.

        Args:
            job: waiting.
            behind: those that wait behind it and might run beside it.
            may_wait: whether somebody runs who will give memory back.

        Raises:
            CapacityError: it needs more than there can ever be, or than there is while nobody runs.
            ConfigError: as `Job.admit`.
        """
        self._check_limit(job)
        wanted_tokens, aside_bytes = self._wanted_tokens(job, behind), self._arena.aside_bytes
        while True:
            prefix = job.find_prefix(self._prefixes)
            try:
                self._arena.set_aside(max(aside_bytes, job.held_bytes))
                job.admit(prefix, wanted_tokens=wanted_tokens)
            except (CapacityError, ConfigError) as error:
                self._arena.set_aside(aside_bytes)  # what waits or ends holds nothing
                if isinstance(error, ConfigError):
                    raise
                if self._prefixes.evict(spare=prefix):
                    continue
                if may_wait:
                    return False
                if not self._prefixes.evict():
                    raise
            else:
                return True

    def settle(self, running: Iterable[Job]) -> None:
        """Leave room for the rows of running requests alone, some of which may be read by now."""
        self._arena.set_aside(max((job.held_bytes for job in running), default=0))

    def _wanted_tokens(self, job: Job, behind: Iterable[Job]) -> int:
        """Return how long a slab would best be, if one must be made."""
        if not self._is_grouped:
            return 0
        kv_format = job.request.kv_format
        alike = [job, *(other for other in behind if other.request.kv_format == kv_format)]
        spare_tokens = self._arena.slab_tokens // _SPARE_SHARE
        return sum(other.need_tokens() for other in alike) + spare_tokens

    def _check_limit(self, job: Job) -> None:
        limit_bytes, kv_format = self._arena.limit_bytes, job.request.kv_format
        if limit_bytes is None:
            return
        rows_bytes = job.held_bytes
        limit_tokens = max(0, limit_bytes - rows_bytes) // self._arena.token_bytes(kv_format)
        need_tokens = job.need_tokens()
        if need_tokens > limit_tokens:
            raise CapacityError(
                f"the request needs {need_tokens} tokens of {kv_format} cache, the limit is "
                f"{limit_tokens}{f' beside {rows_bytes} bytes of rows' if rows_bytes else ''}.",
                "plan fewer tokens, a coarser kv_cache, a smaller max_new_tokens, or raise "
                "max_cache_tokens or max_cache_bytes.",
            )
