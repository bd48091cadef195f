"""What was seen of the visuals a model answered about last: kept, so that a second question has it.

A second question about the same frames takes their keys and values from the cache and never decodes
them again; what they showed is remembered here. Knows no engine and no pixels but thumbnails.
"""

import threading
from collections import OrderedDict

from llava_video.values import FrameRef, VisualPlan
from llava_video.video.evidence import Evidence

# One is 64 thumbnails of 160 x 90 px, 3 MB.
_MOST_VISUALS = 8


class SeenVisuals:
    """Evidence by the key of the visual it is of; the oldest goes when there are too many."""

    def __init__(self) -> None:
        self._evidence: OrderedDict[str, Evidence] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, key: str, evidence: Evidence) -> None:
        """Keep what was seen of a visual."""
        with self._lock:
            self._evidence[key] = evidence
            self._evidence.move_to_end(key)
            while len(self._evidence) > _MOST_VISUALS:
                self._evidence.popitem(last=False)

    def recall(self, key: str, plan: VisualPlan) -> Evidence:
        """Return what was seen of a visual; where that is forgotten, the frames that were planned.

        Args:
            key: as it was remembered.
            plan: of the visual; all its frames were seen, or the cache would not hold it.
        """
        with self._lock:
            found = self._evidence.get(key)
        if found is not None:
            return found
        refs = map(FrameRef, plan.frame_idxs, plan.times_s)
        return Evidence.recalled(tuple(refs))
