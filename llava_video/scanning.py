"""Opened visuals → the items the planner sees, looked through first where their sampling needs it.

Asks `planning` where to look and `video` to look there. Knows no model and no budget.
"""

from dataclasses import replace

from llava_video.inputs import Opened, OpenedVideo
from llava_video.planning.planner import Item
from llava_video.planning.scans import dedupe_threshold, scan_idxs
from llava_video.planning.settings import SamplingSettings
from llava_video.values import Scan
from llava_video.video.decoder import Decoder
from llava_video.video.scan import scan_changes, scan_cuts


def item_of(visual: Opened) -> Item:
    """Return what the planner sees of a visual; a scan decodes, and may take as long as the video.

    Raises:
        ConfigError: the span lies outside the video.
        DecodeError: nothing that was to be looked at can be decoded.
    """
    if not isinstance(visual, OpenedVideo) or not visual.sampling.needs_scan:
        return visual.item
    return replace(visual.item, scan=scan_for(visual.decoder, visual.sampling))


def scan_for(decoder: Decoder, sampling: SamplingSettings) -> Scan:
    """Look through a video as a rule needs it.

    Raises:
        As `item_of`.
    """
    times_s = decoder.info.pts_s[scan_idxs(decoder.info, sampling)].tolist()
    if sampling.rule == "scene":
        return scan_cuts(decoder, times_s)
    return scan_changes(decoder, times_s, threshold=dedupe_threshold(sampling))
