import pytest
import torch

from llava_video.engine.step_graphs import StepGraphs, cuda_capture


class Captures:
    """Captures steps as a GPU would: without running them."""

    def __init__(self, error=None):
        self.error = error
        self.captured, self.replayed = [], []

    def __call__(self, step):
        if self.error:
            raise self.error
        self.captured.append(step)
        return self.Graph(self, step)

    class Graph:
        def __init__(self, captures, step):
            self.captures, self.step = captures, step

        def replay(self):
            self.captures.replayed.append(self.step)
            self.step()


def test_the_first_run_is_eager_the_second_captured_and_all_later_ones_replayed():
    captures, runs = Captures(), []
    graphs = StepGraphs(captures)
    for idx in range(4):
        graphs.run("a", lambda idx=idx: runs.append(("a", idx)))
        graphs.run("b", lambda idx=idx: runs.append(("b", idx)))
    # What is replayed is the step that was captured, the second.
    assert [run for run in runs if run[0] == "a"] == [("a", 0), ("a", 1), ("a", 1), ("a", 1)]
    assert len(captures.captured) == len(graphs) == 2
    assert len(captures.replayed) == 6


def test_without_a_capture_every_run_is_eager():
    graphs, runs = StepGraphs(None), []
    for idx in range(3):
        graphs.run("a", lambda idx=idx: runs.append(idx))
    assert runs == [0, 1, 2]


def test_what_cannot_be_captured_runs_eagerly_and_is_said_once(caplog):
    graphs, runs = StepGraphs(Captures(RuntimeError("not permitted"))), []
    for idx in range(4):
        graphs.run("a", lambda idx=idx: runs.append(idx))
        graphs.run("b", lambda idx=idx: runs.append(idx))
    assert runs == [0, 0, 1, 1, 2, 2, 3, 3]
    assert caplog.text.count("no CUDA graph") == 1


def test_a_capture_without_memory_is_told_and_tried_again_later(caplog):
    captures, runs = Captures(torch.OutOfMemoryError("full")), []
    graphs = StepGraphs(captures)
    graphs.run("a", lambda: runs.append(0))
    with pytest.raises(torch.OutOfMemoryError):  # whoever called frees memory,
        graphs.run("a", lambda: runs.append(1))
    graphs.run("a", lambda: runs.append(1))  # tries again, eagerly,
    captures.error = None
    graphs.run("a", lambda: runs.append(2))  # and has a graph after all
    assert len(captures.captured) == 1
    assert runs == [0, 1, 2]
    assert "no CUDA graph" not in caplog.text


def test_graphs_of_what_is_gone_are_forgotten():
    captures, runs = Captures(), []
    graphs = StepGraphs(captures)
    for idx in range(2):
        for key in ((1, "a"), (2, "a")):
            graphs.run(key, lambda idx=idx: runs.append(idx))
    graphs.forget(lambda key: key[0] == 1)
    assert len(graphs) == 1
    graphs.run((1, "a"), lambda: runs.append("eager again"))
    assert runs[-1] == "eager again"
    assert len(captures.captured) == 2


def test_a_step_that_fails_has_not_run():
    captures, fails = Captures(), [True]
    graphs = StepGraphs(captures)

    def step():
        if fails.pop():
            raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        graphs.run("a", step)
    fails += [False, False]
    graphs.run("a", step)
    assert not captures.captured


@pytest.mark.gpu
def test_a_graph_repeats_a_step_on_a_gpu():
    device = torch.device("cuda")
    graphs = StepGraphs(cuda_capture(device))
    total = torch.zeros(3, device=device)
    added = torch.ones(3, device=device)
    for num_runs in range(1, 6):
        graphs.run("a", lambda: total.add_(added))
        assert total.tolist() == [num_runs] * 3
    added.fill_(10.0)
    graphs.run("a", lambda: None)  # replayed: what is passed now is not looked at
    assert total.tolist() == [15.0] * 3
    assert len(graphs) == 1
