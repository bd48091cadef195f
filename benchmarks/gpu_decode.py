"""How fast tokens are written: section decode."""

from typing import Any

from gpu_bench import Bench, Measured, Section, Target, attempt, try_peer
from gpu_models import (
    QUESTION_IDS,
    answered,
    engine_of,
    filled_sequence,
    hf_generate,
    random_model,
    request_of,
    twin_of,
)

from llava_video.model.llava import LlavaModel
from llava_video.values import KvFormat

_CONTEXT_TOKENS = 12_288
_LONG_TOKENS = 160_000


def measure_decode(bench: Bench, found: Measured) -> None:
    """Write tokens after contexts of noise; transformers after text of the same length."""
    found.details["copy_bytes_per_s"] = bench.copy_bytes_per_s()
    for size in ("7b", "0.5b"):
        model = random_model(bench, size)
        num_context = bench.of(_CONTEXT_TOKENS, 40)
        rate = _tokens_per_s(bench, model, num_context, "plain", found.details, size)
        found.values[f"{size}_rate"] = rate
        if size == "7b":
            num_bytes = _bytes_per_token(model, num_context)
            share = rate * num_bytes / found.details["copy_bytes_per_s"]
            found.values["7b_share"] = 100 * share
            _measure_long(bench, model, found)
        theirs = attempt(
            f"{size} transformers",
            lambda size=size, model=model: twin_of(bench, size, model),
            found.details,
        )
        peer_rates = [
            try_peer(
                f"{size} transformers{label}",
                lambda theirs=theirs, options=options: _hf_rate(bench, theirs, options),
                found.details,
            )
            for label, options in (("", {}), (" static cache", {"cache_implementation": "static"}))
        ]
        best = max((one for one in peer_rates if one), default=None)
        if best:
            found.values[f"{size}_times_hf"] = rate / best
        del model, theirs
        bench.forget_peak()


def _measure_long(bench: Bench, model: LlavaModel, found: Measured) -> None:
    num_context = bench.of(_LONG_TOKENS, 60)
    formats: tuple[KvFormat, ...] = ("plain", "int8", "int4")
    rates = {
        kv_format: _tokens_per_s(
            bench, model, num_context, kv_format, found.details, f"long {kv_format}"
        )
        for kv_format in formats
    }
    found.values["int8_long"] = rates["int8"] / rates["plain"]


def _tokens_per_s(
    bench: Bench,
    model: LlavaModel,
    num_context: int,
    kv_format: KvFormat,
    details: dict[str, Any],
    name: str,
) -> float:
    """Return the rate of the tokens after the first: a long answer less a short one."""
    num_new = bench.of(257, 5)
    engine = engine_of(model, slab_tokens=num_context + 2 * (num_new + len(QUESTION_IDS)))
    sequence, filled = filled_sequence(engine, num_context, kv_format)

    def answer(num_tokens: int) -> None:
        options: dict[str, Any] = {"kv_format": kv_format, "reuse": sequence}
        answered(engine, request_of(filled, num_new=num_tokens, **options))

    answer(num_new)  # graphs are captured once
    times_s = [
        (bench.wall_s(lambda: answer(num_new)), bench.wall_s(lambda: answer(1)))
        for _ in range(bench.of(3, 1))
    ]
    taken_s = sorted(long_s - short_s for long_s, short_s in times_s)[len(times_s) // 2]
    sequence.release()
    engine.close()
    rate = (num_new - 1) / max(taken_s, 1e-9)
    details[name] = {"context": num_context, "new_tokens": num_new, "tokens_per_s": rate}
    return rate


def _hf_rate(bench: Bench, theirs: Any, options: dict[str, Any]) -> float:
    """Return transformers' rate by the same difference."""
    num_new, num_text = bench.of(65, 5), bench.of(_CONTEXT_TOKENS, 40)
    for name, value in options.items():
        setattr(theirs.generation_config, name, value)
    try:
        runs = {
            count: lambda count=count: hf_generate(bench, theirs, count, num_text=num_text)
            for count in (num_new, 1)
        }
        for run in runs.values():
            run()
        taken_s = bench.wall_s(runs[num_new]) - bench.wall_s(runs[1])
    finally:
        for name in options:
            setattr(theirs.generation_config, name, None)
    return (num_new - 1) / max(taken_s, 1e-9)


def _bytes_per_token(model: LlavaModel, num_context: int) -> int:
    """Return what one step must read: layers, head, and the cache of the context."""
    language_model = model.language_model
    parts = [*language_model.layers, language_model.lm_head or language_model.embed_tokens]
    weights = sum(p.nbytes for part in parts for p in part.parameters())
    text = language_model.config
    token_bytes = 2 * text.num_layers * text.num_kv_heads * text.head_dim * model.dtype.itemsize
    return weights + num_context * token_bytes


SECTIONS = {
    "decode": Section(
        question="how many tokens a second, one answer at a time, beside transformers?",
        targets=(
            Target(
                key="7b_share",
                what="7B bf16, 12k context, of copy bandwidth",
                unit="%",
                target=75,
                limit=100,
            ),
            Target(key="7b_rate", what="7B bf16, 12k context", unit="tok/s", target=215, limit=289),
            Target(key="7b_times_hf", what="7B of transformers' best", unit="x", target=4),
            Target(key="0.5b_times_hf", what="0.5B of transformers' best", unit="x", target=10),
            Target(key="0.5b_rate", what="0.5B bf16, 12k context", unit="tok/s", target=None),
            Target(
                key="int8_long",
                what="int8 KV of our bf16 KV at 160k",
                unit="x",
                target=1.2,
                limit=1.24,
            ),
        ),
        run=measure_decode,
    ),
}
