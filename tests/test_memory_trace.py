"""The trace counts storages: once, until their last tensor goes, and nothing that makes none."""

import pytest
import torch
from memory_trace import HALF_B, SEVEN_B, fake_model, traced

KIB = 1024


def test_a_tensor_counts_from_its_birth_to_its_last_reference():
    with traced() as trace:
        first = torch.empty(256)
        assert trace.live_bytes == KIB
        second = torch.empty(512, dtype=torch.bfloat16)
        again = second
        assert trace.live_bytes == 2 * KIB
        del first
        assert trace.live_bytes == KIB
        del second
        assert trace.live_bytes == KIB
        del again
        assert (trace.live_bytes, trace.peak_bytes) == (0, 2 * KIB)


def test_views_and_work_in_place_make_nothing():
    with traced() as trace:
        whole = torch.zeros(16, 16)
        part = whole[3:5].T
        whole.add_(1).mul_(part[0, 0])
        torch.mul(whole, 2, out=whole)
        assert trace.live_bytes == trace.peak_bytes == KIB
        del whole
        assert trace.live_bytes == KIB  # the view holds it
        del part
        assert trace.live_bytes == 0


def test_what_an_expression_drops_is_in_the_peak_only():
    with traced() as trace:
        x = torch.zeros(256)
        y = (x + 1) * 2  # x, x + 1 and the product at once
        assert (trace.live_bytes, trace.peak_bytes) == (2 * KIB, 3 * KIB)
        trace.reset_peak()
        assert trace.peak_bytes == 2 * KIB
        del x, y
        assert trace.live_bytes == 0


def test_nothing_is_forgotten_when_memory_is_used_again():
    """Storages come and go at the same address: each is counted on its own."""
    with traced() as trace:
        for _ in range(100):
            kept = torch.empty(256)
            assert trace.live_bytes == KIB
            del kept
        held = [torch.empty(256) for _ in range(100)]
        assert trace.live_bytes == 100 * KIB
        del held
        assert trace.live_bytes == 0


@pytest.mark.parametrize(
    ("dimensions", "text", "tower"),
    [
        # Qwen2-7B's and Qwen2-0.5B's published counts. SigLIP, 26 layers of width w = 1152, inner
        # width 4304: 26 (4 w^2 + 2 w 4304 + 9 w + 4304) + (3 14^2 + 1) w + 729 w.
        (SEVEN_B, 7_615_616_512, 397_745_440),
        (HALF_B, 494_032_768, 397_745_440),
    ],
)
def test_the_models_have_their_true_sizes(dimensions, text, tower):
    with traced() as trace:
        model = fake_model(dimensions)
        counts = {
            name: sum(parameter.numel() for parameter in part.parameters())
            for name, part in (("text", model.language_model), ("tower", model.vision_tower))
        }
        assert counts == {"text": text, "tower": tower}
        assert trace.live_bytes == 2 * sum(parameter.numel() for parameter in model.parameters())
