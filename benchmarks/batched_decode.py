"""What does a token of an answer cost beside seven others, of what it costs alone?

Eight requests, each with as many prompt tokens of its own as a video has, write so many greedy
tokens at once; and one does by itself. Only the steps after the first token count. Bandwidth bound:
alone, every step reads all weights for one token. Good: at most 0.3 of the cost alone, on the same
device.

    python benchmarks/batched_decode.py [--size demo|0.5b|7b] [--device cpu|cuda] [--batch 8]
        [--tokens 64] [--context N] [--append] [--check]
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from gpu_bench import Bench
from gpu_models import engine_of, random_model, request_of
from harness import Timing, interleaved, parser_of, percentile, report

from llava_video.engine.request import Failed, Finished, TextPart
from llava_video.engine.scheduler import Scheduler
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.spec import read_spec

MAX_SHARE = 0.3
# A clip of the small world, 18 frames, as the demo model sees it; 64 frames of 210 tokens.
_CONTEXT = {"demo": 533, "0.5b": 13_440, "7b": 13_440}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where a batch costs too much."""
    parser = parser_of(__doc__)
    parser.add_argument("--size", choices=tuple(_CONTEXT), default="demo")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="written by each request")
    parser.add_argument("--context", type=int, default=0, help="tokens of each prompt")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args(arguments)
    if asked.check:
        asked.tokens, asked.repeats, asked.context = 4, 1, 32
    elif asked.size != "demo" and asked.device == "cpu":
        parser.error(f"{asked.size} is for --device cuda")
    context = asked.context or _CONTEXT[asked.size]
    bench = Bench(device=torch.device(asked.device), is_check=asked.check)
    is_demo = asked.size == "demo"
    model = demo_model(asked.device) if is_demo else random_model(bench, asked.size)
    row = measured(model, asked.batch, context, asked.tokens, asked.repeats)
    dtype = str(model.language_model.dtype).removeprefix("torch.")
    row = {"size": asked.size, "dtype": dtype, **row}
    print(f"alone {1e3 * row['alone_s']:.3f} ms a token, with {row['batch']} at once "
          f"{1e3 * row['batched_s']:.3f} ms: {row['share']:.3f} of it")  # fmt: skip
    where = asked.size if asked.device == "cpu" else f"{asked.size}_{asked.device}"
    report(f"batched_decode_{where}", row | {"check": asked.check}, append=asked.append)
    return 0 if row["share"] <= MAX_SHARE or asked.check else 1


def demo_model(device: str) -> LlavaModel:
    """Load the packaged model's weights, in bfloat16 on a GPU."""
    spec = read_spec("demo")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return load_model(spec.sources, config=spec.config, device=device, dtype=dtype)


@torch.inference_mode()
def measured(
    model: LlavaModel, num_requests: int, context_tokens: int, num_tokens: int, repeats: int
) -> dict[str, Any]:
    """Return seconds per token alone and in a batch, and their ratio."""
    engine = engine_of(model, max_running=max(16, num_requests))
    taken: dict[int, list[float]] = {1: [], num_requests: []}

    def run(count: int) -> None:
        parts = [text_part(number, context_tokens) for number in range(count)]
        taken[count].append(write_all(engine, parts, num_tokens) / (count * (num_tokens - 1)))

    interleaved(
        {str(count): partial(run, count) for count in taken}, warm_up=2, repeats=repeats,
        budget_s=120,
    )  # fmt: skip
    alone, batched = (taken[count][2:] for count in (1, num_requests))
    shares = [theirs / own for own, theirs in zip(alone, batched, strict=True)]
    return {
        "batch": num_requests,
        "context_tokens": context_tokens,
        "new_tokens": num_tokens,
        "alone_s": percentile(alone, 0.5),
        "batched_s": percentile(batched, 0.5),
        "share": percentile(shares, 0.5),
        "shares": shares,
        "alone": Timing(tuple(alone)).to_json(),
        "batched": Timing(tuple(batched)).to_json(),
    }


def text_part(number: int, num_tokens: int) -> TextPart:
    """Return a prompt that shares no beginning with that of another number."""
    return TextPart(tuple(10 + (7 * number + idx) % 200 for idx in range(num_tokens)))


def write_all(engine: Scheduler, parts: Sequence[TextPart], num_tokens: int) -> float:
    """Answer prompts at once; return the time from the first tokens to the last, s.

    All are of one length, so their first tokens come with the same step.

    Raises:
        RuntimeError: an answer is shorter than it should be.
    """
    requests = [
        request_of(part, num_new=num_tokens, request_id=number) for number, part in enumerate(parts)
    ]
    generate_s: list[float] = []
    for event in engine.run(requests):
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Finished):
            if event.answer.new_tokens != num_tokens:
                raise RuntimeError(f"{event.answer.new_tokens} tokens, not {num_tokens}.")
            generate_s.append(event.answer.timings["generate"])
    return max(generate_s)


if __name__ == "__main__":
    sys.exit(main())
