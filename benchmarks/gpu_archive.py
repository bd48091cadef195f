"""How many clips an hour the engine makes as an archive's threads drive it: section archive.

Frames are decoded already, on both sides, so that neither waits for a disk; what an archive adds
around the engine is `archive_speed`'s question.
"""

from concurrent.futures import ThreadPoolExecutor

from gpu_bench import Bench, Measured, Section, Target, attempt, try_peer
from gpu_models import (
    answered,
    engine_of,
    hf_generate,
    plan_of,
    random_model,
    request_of,
    twin_of,
    video_part,
)

from llava_video.archive.device_use import DeviceUse

_IN_FLIGHT = 8
_HOUR_S = 3600.0


def measure_archive(bench: Bench, found: Measured) -> None:
    """Answer about many clips, eight under way; and one after the other by transformers."""
    model = random_model(bench, "7b")
    theirs = attempt("transformers", lambda: twin_of(bench, "7b", model), found.details)
    num_frames, num_new = bench.of(64, 3), bench.of(128, 4)
    plan = plan_of(bench, num_frames, 210)
    their_plan = plan_of(bench, num_frames, 196)  # theirs has no newline per row: less to read
    engine = engine_of(model, max_running=_IN_FLIGHT)
    device_use = DeviceUse()

    def answer(number: int) -> None:
        # A key of its own, as every file has: nobody finds another one's rows.
        answered(engine, request_of(video_part(plan, key=f"clip {number}"), num_new=num_new))
        device_use.mean()  # looks at the driver once a second at most

    def work(start: int, num_clips: int) -> None:
        with ThreadPoolExecutor(_IN_FLIGHT) as threads:
            list(threads.map(answer, range(start, start + num_clips)))

    work(0, _IN_FLIGHT)
    device_use = DeviceUse()  # what it was busy with before does not count
    num_clips = bench.of(96, _IN_FLIGHT)
    seconds = bench.wall_s(lambda: work(_IN_FLIGHT, num_clips))
    found.values["clips_per_h"] = _HOUR_S * num_clips / seconds
    busy = device_use.mean()
    if busy is not None or bench.is_check:
        found.values["busy"] = 100 * (busy or 0.0)
    found.details |= {"clips": num_clips, "seconds": seconds, "in_flight": _IN_FLIGHT}

    def loop() -> float:
        hf_generate(bench, theirs, num_new, plan=their_plan)
        num_alone = bench.of(6, 1)
        alone_s = bench.wall_s(
            lambda: [hf_generate(bench, theirs, num_new, plan=their_plan) for _ in range(num_alone)]
        )
        return _HOUR_S * num_alone / alone_s

    peer = try_peer("transformers, batch of one", loop, found.details)
    if peer:
        found.values["times_hf"] = found.values["clips_per_h"] / peer


SECTIONS = {
    "archive": Section(
        question="64 frames of 210 tokens, 128 new, 7B: how many clips an hour?",
        targets=(
            Target(key="clips_per_h", what="clips an hour", unit="clips/h", target=5000),
            Target(key="times_hf", what="of a transformers loop's rate", unit="x", target=5),
            Target(key="busy", what="the GPU's busy share", unit="%", target=85, limit=100),
        ),
        run=measure_archive,
    ),
}
