import pytest
import torch

from llava_video.engine.decode_group import DecodeGroup
from llava_video.engine.request import Finished, answer_of
from llava_video.engine.step import run_step
from llava_video.engine.step_graphs import StepGraphs


class ByHand:
    """A graph that runs the step it was captured from, on whatever stands in its tensors now."""

    def __init__(self, step):
        self.replay = step


class Runs:
    """One group, driven step by step; `said` holds each request's tokens as they are delivered."""

    def __init__(self, tiny, make_job, arena):
        self.tiny, self.make_job, self.arena = tiny, make_job, arena
        self.jobs, self.told, self.said, self.launched = [], [], {}, []
        graphs = StepGraphs(ByHand)
        self.run_graph = graphs.run
        graphs.run = self.note
        self.group = DecodeGroup(tiny.model.language_model, arena, 0, graphs, 16)

    def note(self, key, step):
        self.launched.append(key)
        self.run_graph(key, step)

    def join(self, request):
        """Read a prompt by plain steps, up to its first token."""
        job, _, told = self.make_job(request, arena=self.arena)
        job.admit()
        while job.prefill_left_tokens:
            works = job.works(100)
            logits = run_step(self.tiny.model.language_model, self.arena, works)
            job.receive(works, [logits])
        self.jobs.append(job)
        self.told.append(told)
        self.said[job] = []
        return job

    def step(self):
        self.group.launch([job for job in self.jobs if not job.has_ended])
        for job, token_id in self.group.deliver():
            self.said[job].append(token_id)
            job.take(token_id)

    def run_to_end(self):
        while not all(job.has_ended for job in self.jobs):
            self.step()

    def answers(self):
        return [told[-1].answer for told in self.told if isinstance(told[-1], Finished)]


@pytest.fixture
def runs(tiny, make_job, ask):
    """Return a group over an arena whose slab 0 has room for many."""
    _, arena, _ = make_job(ask("a"))
    arena.slab_tokens = 2048
    with torch.inference_mode():
        yield Runs(tiny, make_job, arena)
    assert arena.used_tokens == 0


@pytest.fixture
def alone(make_engine):
    """Return a function that answers a request by plain steps."""
    engine = make_engine(penalty=1.05)
    return lambda request: answer_of(engine, request).token_ids


def test_tokens_are_read_one_step_late(runs, ask, alone):
    job = runs.join(ask("Hello", max_new_tokens=6))
    expected = alone(ask("Hello", max_new_tokens=6))
    for num_launched in range(1, 6):
        runs.step()
        assert len(runs.launched) == num_launched
        assert len(runs.said[job]) == num_launched - 1
    runs.step()  # the last token is on its way, nothing is left to launch
    assert len(runs.launched) == 5
    assert job.has_ended
    assert runs.answers()[0].token_ids == expected
    assert runs.group.is_idle


def test_what_is_launched_after_an_end_is_dropped(runs, ask, alone, tiny):
    free = alone(ask("Hello", max_new_tokens=20))
    job = runs.join(ask("Hello", max_new_tokens=20, stop=(chr(free[6]),)))
    num_tokens = free.index(free[6]) + 1
    runs.run_to_end()
    assert runs.answers()[0].token_ids == free[:num_tokens]
    # The first token came with the prompt, and one step too many was on its way.
    assert len(runs.launched) == num_tokens
    assert len(runs.said[job]) == num_tokens - 1
    assert runs.group.is_idle


def test_requests_join_and_leave_as_they_like(runs, ask, alone):
    """Their tokens are theirs alone, whoever is beside them, and whatever graph they run in."""

    def request(idx):
        kinds = [{}, {"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.9, "top_k": 40}]
        scale = 2.5 if idx % 2 else 1.0
        length = 5 + (7 * idx) % 23
        return ask(
            f"Number {idx}",
            request_id=idx,
            max_new_tokens=length,
            seed=idx,
            position_scale=scale,
            **kinds[idx % 3],
        )

    for idx in range(12):
        runs.join(request(idx))
        for _ in range(1 + idx % 4):
            runs.step()
    runs.run_to_end()
    answers = runs.answers()
    assert [answer.token_ids for answer in answers] == [alone(request(i)) for i in range(12)]
    sizes = {size for _, size, _ in runs.launched}
    assert {num_rows for num_rows, _ in sizes} >= {1, 2, 4, 8}  # and what fills them up
    assert {choosing for *_, choosing in runs.launched} == {"greedy", "sampled", "cut"}


def test_long_answers_are_arranged_anew_now_and_then(runs, ask, alone):
    """After 64 steps uniform numbers are drawn, and the tokens, now more, are cut anew."""
    requests = [
        ask("Hello", max_new_tokens=300, temperature=1.0, seed=5, loop_guard=False),
        ask("b", request_id=1, max_new_tokens=200, loop_guard=False),
    ]
    for request in requests:
        runs.join(request)
    runs.run_to_end()
    assert [answer.token_ids for answer in runs.answers()] == [alone(r) for r in requests]
    assert len(runs.launched) == 299


def test_what_fills_up_a_step_touches_nobody(runs, ask, tiny):
    """Three rows in a step of four: the fourth writes where the first will write next."""
    jobs = [runs.join(ask("x" * (4 + i), request_id=i, max_new_tokens=9)) for i in range(3)]
    stores = [
        runs.arena.store(layer_idx, 0).k.view(torch.int32)  # what was never written may be NaN
        for layer_idx in range(tiny.model.language_model.config.num_layers)
    ]
    before = [store.clone() for store in stores]
    places = {job.writing()[0].writable(1).start for job in jobs}
    filler = jobs[0].writing()[0].writable(2).stop - 1
    runs.group.launch(jobs)
    for store, keys in zip(stores, before, strict=True):
        changed = (store != keys).flatten(1).any(dim=1)
        assert set(changed.nonzero()[:, 0].tolist()) == {*places, filler}
    runs.run_to_end()


def test_a_cancelled_request_is_forgotten_with_a_step_on_its_way(runs, ask, alone):
    runs.join(ask("Hello", max_new_tokens=50))
    other = runs.join(ask("b", request_id=1, max_new_tokens=9))
    for _ in range(4):
        runs.step()
    runs.jobs[0].cancel()
    assert len(runs.answers()[0].token_ids) == 4
    runs.run_to_end()
    assert runs.answers()[1].token_ids == alone(ask("b", max_new_tokens=9))
    assert len(runs.said[other]) == 8


def test_a_step_without_memory_can_be_launched_again(runs, ask, alone, monkeypatch):
    for idx in range(2):
        runs.join(ask(f"Number {idx}", request_id=idx, max_new_tokens=9, temperature=1.0))
    model, run = runs.tiny.model.language_model, runs.tiny.model.language_model.run
    fails = []

    def failing(*args):
        if fails:
            fails.pop()
            raise torch.OutOfMemoryError("no memory")
        return run(*args)

    monkeypatch.setattr(model, "run", failing)
    for step in range(20):
        if step in (0, 3, 4):
            fails.append(True)
            with pytest.raises(torch.OutOfMemoryError):
                runs.step()
        runs.step()
    answers = [answer.token_ids for answer in runs.answers()]
    monkeypatch.setattr(model, "run", run)
    assert answers == [
        alone(ask(f"Number {idx}", max_new_tokens=9, temperature=1.0)) for idx in range(2)
    ]
