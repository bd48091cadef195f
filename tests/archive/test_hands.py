"""A model by its name is loaded where it is called, and errors can be raised anywhere."""

import pickle
from functools import partial
from pathlib import Path

import pytest

from llava_video.api import load
from llava_video.archive.hands import Busy, Job, NamedModel, as_ours
from llava_video.archive.settings import ArchiveSettings
from llava_video.connecting import connect
from llava_video.errors import CapacityError, CheckpointError


def test_a_name_travels_and_is_loaded_there(tiny_folder: Path) -> None:
    model = NamedModel(tiny_folder, {"device": "cpu", "dtype": "float32"})
    job = Job(settings=ArchiveSettings(), options={"num_frames": 2}, model=model)
    there = pickle.loads(pickle.dumps(job))
    assert there == job
    with there.model() as loaded:
        assert loaded.spec.name == str(tiny_folder)
    with pytest.raises(TypeError, match="sort"):
        NamedModel(tiny_folder, {"sort": 1})()


def test_errors_of_other_packages_become_ours() -> None:
    own = CheckpointError("no model.", "name one.")
    assert as_ours(own) is own
    other = as_ours(RuntimeError("CUDA out of memory"))
    assert isinstance(other, CapacityError)
    assert str(pickle.loads(pickle.dumps(other))) == str(other)
    assert "RuntimeError: CUDA out of memory" in other.message


def test_nothing_is_known_of_a_device_at_first() -> None:
    assert Busy() == (0.0, None)


def test_a_served_model_is_known_as_one_wherever_it_travels(tiny_folder: Path) -> None:
    served = partial(connect, "http://localhost:8000/v1", "name", plan_as=tiny_folder)
    others = (NamedModel(tiny_folder), partial(load, tiny_folder))
    for model, is_served in ((served, True), *((other, False) for other in others)):
        job = Job(settings=ArchiveSettings(), options={}, model=model)
        assert job.is_served is is_served
        assert pickle.loads(pickle.dumps(job)).is_served is is_served
