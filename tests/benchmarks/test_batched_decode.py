"""A batch's tokens are timed at toy size, each request to its last one."""

import json

import batched_decode
import pytest
import torch
from gpu_models import engine_of


def test_a_toy_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert batched_decode.main(["--check", "--batch", "3"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["question"], row["batch"], row["new_tokens"]) == ("batched_decode_demo", 3, 4)
    assert row["share"] == pytest.approx(row["batched_s"] / row["alone_s"])
    assert row["share"] > 0


def test_what_does_not_fit_a_cpu_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        batched_decode.main(["--size", "7b"])
    assert "--device cuda" in capsys.readouterr().err


@torch.inference_mode()
def test_all_prompts_write_at_once() -> None:
    engine = engine_of(batched_decode.demo_model("cpu"))
    parts = [batched_decode.text_part(number, 40) for number in range(2)]
    assert parts[0].ids[:1] != parts[1].ids[:1]
    assert batched_decode.write_all(engine, parts, 3) > 0
