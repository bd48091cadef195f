"""What comes after the decoder: logits, losses and greedy answers, compared with what is stored."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from parity_checks import ARGMAX_MARGIN, ROWS_LIMIT, Findings
from parity_keys import Arrays, part_of, read_key, rows_at, stored
from parity_run import PREFILL_CHUNK_TOKENS, TILE_CHUNK, SampleRun

from llava_video.engine.request import Failed, Finished, Request
from llava_video.engine.scheduler import Scheduler
from llava_video.engine.settings import EngineSettings
from llava_video.model.llava import LlavaModel
from llava_video.model.tokenizer import Tokenizer

Runs = Sequence[SampleRun]
Asked = tuple[SampleRun, str, npt.NDArray[Any], float]

# Labels of tokens that are not learned.
_IGNORED = -100


def compare_logits(findings: Findings, run: SampleRun, suffix: str, limit: float) -> None:
    """Compare what is stored of one sample's logits."""
    expected = run.sample.expected
    keys = [key for key in expected if key.startswith("logits")]
    if not keys:
        return
    for key in keys:
        word = read_key(key)
        if word is not None:
            rows = (run.free_logits if word.is_free else run.logits).numpy()
            theirs = expected[key]
            if key == "logits" and "logit_positions" in expected:
                rows = rows_at(rows, expected["logit_positions"])
            ours = part_of(rows[None, :, : theirs.shape[-1]], word.parts, None)
            findings.near("logits", key + suffix, ours, theirs, limit)
    _compare_statistics(findings, run, suffix, limit)


def compare_loss(findings: Findings, expected: Arrays, runs: Runs) -> None:
    """Compare the mean cross entropy of kept tokens: of all samples, and of the first alone."""
    found = stored(expected, "loss")
    wanted = {found[0]: runs} if found else {}
    if "loss_first_row" in expected:
        wanted["loss_first_row"] = runs[:1]
    for key, own in wanted.items():
        findings.near("loss", key, loss_of(own), expected[key], ROWS_LIMIT)


def loss_of(runs: Runs) -> float:
    """Return the mean cross entropy of the kept tokens of several samples, in double.

    Over the vocabulary of the reference: rows that a conversion added take part in no loss.
    """
    losses = [
        F.cross_entropy(
            run.logits[:-1, : run.vocab_size].double(),
            run.position_labels[1:],
            reduction="sum",
            ignore_index=_IGNORED,
        )
        for run in runs
    ]
    num_kept = sum(int((run.position_labels[1:] != _IGNORED).sum()) for run in runs)
    return float(torch.stack(losses).sum()) / num_kept


def compare_tokens(findings: Findings, runs: Runs, model: LlavaModel, limit: float) -> None:
    """Compare greedy answers of the engine: each request alone, then all of the case at once."""
    asked = [one for idx, run in enumerate(runs) for one in _asked(run, idx, len(runs))]
    if not asked:
        return
    engine = engine_of(model, runs[0].tokenizer)
    requests = [
        run.request(len(tokens), penalty, request_id=idx)
        for idx, (run, _, tokens, penalty) in enumerate(asked)
    ]
    for request, (_, key, theirs, _) in zip(requests, asked, strict=True):
        findings.same("greedy", key, answers(engine, [request])[0], theirs)
    if len(requests) > 1:
        together = answers(engine, requests)
        for ours, (_, key, theirs, _) in zip(together, asked, strict=True):
            findings.same("greedy at once", key, ours, theirs)
    _compare_margins(findings, asked, limit)


def engine_of(model: LlavaModel, tokenizer: Tokenizer) -> Scheduler:
    """Return an engine without end tokens, so that every answer has its full length."""
    settings = EngineSettings(
        prefill_chunk_tokens=PREFILL_CHUNK_TOKENS,
        tile_chunk=TILE_CHUNK,
        slab_tokens=1024,
        kept_prefixes=0,
    )
    return Scheduler(model, tokenizer, eos_ids=(), settings=settings)


def answers(engine: Scheduler, requests: Sequence[Request]) -> list[tuple[int, ...]]:
    """Return the tokens of requests that run at once, in their order.

    Raises:
        Exception: a request's own error.
    """
    tokens: dict[int, tuple[int, ...]] = {}
    for event in engine.run(requests):
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Finished):
            tokens[event.request_id] = event.answer.token_ids
    return [tokens[request.request_id] for request in requests]


def _asked(run: SampleRun, idx: int, num_runs: int) -> list[Asked]:
    suffix = f"_{idx}" if num_runs > 1 else ""
    expected = run.sample.expected
    asked: list[Asked] = []
    if found := stored(expected, "greedy_tokens"):
        key, tokens = found
        asked.append((run, key + suffix, tokens, 1.0))
    if {"greedy_tokens_rep_penalty", "repetition_penalty"} <= set(expected):
        penalty = float(expected["repetition_penalty"])
        tokens = expected["greedy_tokens_rep_penalty"]
        asked.append((run, f"greedy_tokens_rep_penalty{suffix}", tokens, penalty))
    return asked


def _compare_margins(findings: Findings, asked: Sequence[Asked], limit: float) -> None:
    for run, key, tokens, penalty in asked:
        name = "greedy_margin" if penalty == 1.0 else "greedy_margin_rep_penalty"
        theirs = run.sample.expected.get(name)
        if theirs is not None:
            ours = run.forced_margins(tokens.tolist(), penalty)
            margin = key.replace("tokens", "margin").replace("ids", "margin")
            findings.near("greedy margins", margin, ours, theirs, limit)


def _compare_statistics(findings: Findings, run: SampleRun, suffix: str, limit: float) -> None:
    """Compare numbers made of each position's logits, over the columns that the set has."""
    expected = run.sample.expected
    rows = run.logits[:, : _vocab(expected, run.logits.shape[1])]
    top = rows.topk(2, dim=-1)
    margin = top.values[:, 0] - top.values[:, 1]
    ours: Mapping[str, torch.Tensor] = {
        "logits_max": top.values[:, 0],
        "logits_margin": margin,
        "logits_logsumexp": rows.logsumexp(dim=-1),
    }
    for key, value in ours.items():
        if key in expected:
            findings.near("logits", key + suffix, value.numpy(), expected[key], limit)
    if "logits_at_positions" in expected and "logits_positions" in expected:
        key, at = "logits_at_positions", expected["logits_positions"]
        findings.near("logits", key + suffix, rows_at(rows.numpy(), at), expected[key], limit)
    if "logits_argmax" in expected:
        theirs = expected["logits_argmax"]
        argmax = top.indices[:, 0].numpy()
        if argmax.shape == theirs.shape:
            decided = expected.get("logits_margin", margin.numpy()) > ARGMAX_MARGIN
            argmax = np.where(decided, argmax, theirs)
        findings.same("argmax", f"logits_argmax{suffix}", argmax, theirs)


def _vocab(expected: Arrays, ours: int) -> int:
    """Return the logits' width to compare: a set may store fewer columns than there are rows."""
    widths = [
        expected[key].shape[-1]
        for key in ("logits_last", "logits_at_positions", "logits_all", "logits")
        if key in expected
    ]
    return min([ours, *widths])
