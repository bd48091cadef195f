"""The system's word → how many cores this process may use.

Knows no work.
"""

import os


def num_cores() -> int:
    """Return how many cores this process may use, by its affinity where the system has one."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
