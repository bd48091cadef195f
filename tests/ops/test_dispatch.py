"""Which implementation runs, by device and by the variable; and a machine without Triton."""

import pkgutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import triton

import llava_video.ops
from llava_video.ops import dispatch
from llava_video.ops.choice import ENVIRONMENT_NAME, choice
from llava_video.ops.dispatch import device_of, uses_triton

ON_GPU = SimpleNamespace(is_cuda=True)
ON_CPU = torch.zeros(1)

# Everything in ops is imported and one op is run where `import triton` fails.
WITHOUT_TRITON = """
import importlib, sys
sys.modules["triton"] = None
import torch
from llava_video.errors import BackendMissingError
from llava_video.ops import dispatch
for name in sys.argv[1].split():
    importlib.import_module(f"llava_video.ops.{name}")
assert not dispatch.IS_TRITON_HERE
assert [dispatch.triton.cdiv(a, 4) for a in (0, 1, 4, 5)] == [0, 1, 1, 2]
assert [dispatch.triton.next_power_of_2(n) for n in (1, 2, 3, 5, 64)] == [1, 2, 4, 8, 64]

from types import SimpleNamespace
assert not dispatch.uses_triton(SimpleNamespace(is_cuda=True))
from llava_video.ops.kv_format import empty_stored
from llava_video.ops.rope import rotate_and_store
from llava_video.ops.rotation import make_rotation
cpu = torch.device("cpu")
rotation = make_rotation(torch.arange(3), (1.0,), head_dim=8, theta=1e4, device=cpu)
store = empty_stored(3, 2, 8, kv_format="int4", dtype=torch.float32, device=cpu)
q = torch.randn(3, 2, 8)
arguments = (q, q, q, rotation, store, torch.arange(3))
assert rotate_and_store(*arguments).shape == (3, 2, 8)

from llava_video.ops import rope
rope.uses_triton = lambda _: True
try:
    rotate_and_store(*arguments)
except BackendMissingError as error:
    print(error.hint)
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch):
    """Give the variable a value, as a process finds it when it starts."""

    def ask(value: str | None) -> None:
        monkeypatch.delenv(ENVIRONMENT_NAME, raising=False)
        if value is not None:
            monkeypatch.setenv(ENVIRONMENT_NAME, value)
        choice.cache_clear()

    yield ask
    choice.cache_clear()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (True, False)),
        ("auto", (True, False)),
        ("reference", (False, False)),
        ("native", (False, False)),
        ("triton", (True, True)),
    ],
)
def test_kernels_run_on_gpus_unless_asked_otherwise(value, expected, asked):
    asked(value)
    assert (uses_triton(ON_GPU), uses_triton(ON_CPU)) == expected


def test_without_triton_nothing_but_the_variable_asks_for_it(
    asked, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dispatch, "IS_TRITON_HERE", False)
    asked("auto")
    assert not uses_triton(ON_GPU)
    asked("triton")
    assert uses_triton(ON_GPU)  # and the launch then says what is missing


def test_what_is_exported_is_triton():
    assert dispatch.triton is triton
    assert dispatch.tl is triton.language
    assert dispatch.IS_TRITON_HERE


def test_without_triton_every_op_is_imported_and_torch_runs():
    names = [module.name for module in pkgutil.iter_modules(llava_video.ops.__path__)]
    assert {"dispatch", "rope", "attention"} <= set(names)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRITON, " ".join(names)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == 'pip install --upgrade "triton"'


def test_a_launch_of_a_stand_in_names_the_package(monkeypatch: pytest.MonkeyPatch):
    kernel = dispatch._AbsentTriton().jit(len)
    configured = dispatch._AbsentTriton().jit(do_not_specialize=["n"])(len)
    for absent in (kernel, configured):
        assert absent.fn is len
        monkeypatch.setitem(sys.modules, "triton", None)
        with pytest.raises(ImportError, match="triton"):
            absent[(1,)](ON_CPU, NUM=1)


def test_a_tensor_of_the_cpu_needs_no_device():
    with device_of(ON_CPU):
        assert uses_triton(ON_CPU) in (True, False)


@pytest.mark.gpu
def test_kernels_are_launched_where_their_tensors_are():
    last = torch.cuda.device_count() - 1
    with device_of(torch.zeros(1, device=f"cuda:{last}")):
        assert torch.cuda.current_device() == last
    assert torch.cuda.current_device() == 0
