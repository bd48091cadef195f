"""The fixtures and hooks of conftest.py, run on tests that are written here."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
# A stand-in for torch: no CUDA on any machine.
TORCH = """
class cuda:
    @staticmethod
    def is_available():
        return False
"""
GPU_TEST = """
import pytest

@pytest.mark.gpu
def test_gpu():
    pass
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return a folder of its own with our conftest.py."""
    pytester.makeconftest((HERE / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = gpu\n")
    monkeypatch.delenv("LLAVA_VIDEO_REQUIRE_GPU", raising=False)
    return pytester


def outcomes(inner: pytest.Pytester) -> dict[str, int]:
    return inner.runpytest_subprocess("-p", "no:xdist", "-p", "no:cacheprovider").parseoutcomes()


def test_gpu_tests_skip_without_cuda(inner: pytest.Pytester):
    inner.makepyfile(torch=TORCH, test_it=GPU_TEST)
    assert outcomes(inner) == {"skipped": 1}


def test_gpu_tests_fail_where_a_gpu_is_required(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLAVA_VIDEO_REQUIRE_GPU", "1")
    inner.makepyfile(torch=TORCH, test_it=GPU_TEST)
    assert outcomes(inner) == {"errors": 1}


def test_random_states_are_restored(inner: pytest.Pytester):
    # The second test sees the numbers the first saw, though the first drew and reseeded.
    inner.makepyfile(
        """
        import random
        import numpy as np

        seen = []

        def draw():
            numbers = (random.random(), np.random.random())
            random.seed(1); np.random.seed(1)
            return numbers

        def test_first(): seen.append(draw())
        def test_second(): assert draw() == seen[0]
        """
    )
    assert outcomes(inner) == {"passed": 2}


def test_torch_state_is_restored():
    torch = pytest.importorskip("torch")
    import conftest

    before = torch.random.get_rng_state()
    fixture = conftest.restore_random_states.__wrapped__()
    next(fixture)
    torch.manual_seed(123)
    assert not torch.equal(torch.random.get_rng_state(), before)  # the fixture has work to do
    assert next(fixture, None) is None
    assert torch.equal(torch.random.get_rng_state(), before)


def test_shared_and_videos_skip_where_the_folder_is_missing(inner: pytest.Pytester):
    inner.makepyfile("def test_it(videos): pass\ndef test_too(shared): pass")
    assert outcomes(inner) == {"skipped": 2}
