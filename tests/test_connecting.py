"""A server answers every verb as a loaded model does, and is refused before work if it cannot."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import MODEL, ChatServer, serving, truncate

from llava_video import RemoteSettings, connect
from llava_video.api import LlavaVideo, describe_video
from llava_video.errors import (
    CheckpointError,
    ConfigError,
    ServerError,
    ServerRefusedError,
)
from llava_video.model.tokenizer import Tokenizer

WHICH = "Which indices are shown?"
SHOWN = "0, 13, 26, 39"
OPTIONS = {"num_frames": 4, "max_new_tokens": 64}


@pytest.fixture
def server(tiny_folder: Path) -> Iterator[ChatServer]:
    with serving(Tokenizer(tiny_folder)) as running:
        yield running


@pytest.fixture
def model(server: ChatServer, tiny_folder: Path) -> Iterator[LlavaVideo]:
    with connect(server.url, MODEL, plan_as=tiny_folder) as connected:
        yield connected


def test_every_verb(model: LlavaVideo, tiny_clip: Path) -> None:
    assert describe_video(tiny_clip, WHICH, model=model, **OPTIONS).text == SHOWN
    assert model.ask(tiny_clip, WHICH, **OPTIONS).text == SHOWN
    many = model.ask_many(tiny_clip, [WHICH, "how many frames", "last index"], **OPTIONS)
    assert [answer.text for answer in many] == [SHOWN, "4", "39"]
    assert [len(answer.frames) for answer in many] == [4, 4, 4]
    assert list(model.stream(tiny_clip, WHICH, **OPTIONS)) != []
    batch = model.batch([tiny_clip] * 3, "first index", **OPTIONS)
    assert [answer.text for answer in batch] == ["0"] * 3
    with model.chat(tiny_clip, num_frames=4, max_new_tokens=16) as chat:
        assert [chat.ask(one).text for one in ("how many frames", "last index")] == ["4", "39"]
    line = model.timeline(tiny_clip, WHICH, window_s=0.7, summary=False, **OPTIONS)
    assert [caption.text for caption in line.captions] == ["0, 6, 13, 20", "21, 27, 33, 39"]


def test_a_conversation_is_saved_and_goes_on(
    model: LlavaVideo, tiny_clip: Path, tmp_path: Path
) -> None:
    with model.chat(tiny_clip, num_frames=4, max_new_tokens=16) as chat:
        chat.ask("how many frames")
        chat.save(tmp_path / "talk.safetensors")
    with model.resume(tmp_path / "talk.safetensors") as chat:
        assert chat.ask("last index").text == "39"


def test_a_plan_runs_and_reads_back(model: LlavaVideo, tiny_clip: Path) -> None:
    plan = model.plan(tiny_clip, WHICH, **OPTIONS)
    assert any("an estimate" in warning for warning in plan.warnings)
    assert plan.memory.total_bytes == 0
    assert "none here: a server answers" in str(plan)
    answer = model.run(plan)
    assert (answer.text, answer.plan) == (SHOWN, plan)


def test_times_stand_in_the_text(model: LlavaVideo, tiny_clip: Path, server: ChatServer) -> None:
    assert model.ask(tiny_clip, "when is index 26 shown", **OPTIONS).text == "0.87"
    parts = server.bodies[-1]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url"] * 4 + ["text"]
    assert "0.00s,0.43s,0.87s,1.30s" in parts[-1]["text"]


def test_who_answered_stands_in_the_answer(
    model: LlavaVideo, tiny_clip: Path, server: ChatServer, tiny_folder: Path
) -> None:
    told = model.ask(tiny_clip, WHICH, **OPTIONS)
    assert told.provenance["model"] == MODEL
    assert told.provenance["revision"] is None
    served = told.provenance["server"]
    assert (served["base_url"], served["planned_as"]) == (server.url, str(tiny_folder))
    assert told.usage.visual_tokens == 1000 - told.usage.text_tokens
    assert server.url in repr(model)


def test_a_context_shorter_than_the_checkpoints_is_kept_to(
    server: ChatServer, tiny_folder: Path
) -> None:
    server.models[0]["max_model_len"] = 900
    with connect(server.url, MODEL, plan_as=tiny_folder) as model:
        assert model.spec.geometry.context_tokens == 900
        assert not model.spec.geometry.stretches
    server.models[0]["max_model_len"] = 10**9
    with connect(server.url, MODEL, plan_as=tiny_folder) as model:
        assert model.spec.geometry.context_tokens < 10**9


def test_a_checkpoint_that_is_served_under_its_own_name_plans(
    server: ChatServer, tiny_folder: Path
) -> None:
    server.models.append({"id": str(tiny_folder)})
    with connect(server.url, str(tiny_folder)) as model:
        assert model.spec.server.planned_as == str(tiny_folder)


def test_frames_as_a_video(server: ChatServer, tiny_folder: Path, tiny_clip: Path) -> None:
    settings = RemoteSettings(sends="video")
    with connect(server.url, MODEL, plan_as=tiny_folder, settings=settings) as model:
        assert model.ask(tiny_clip, WHICH, **OPTIONS).text == SHOWN
    (video, _) = server.bodies[-1]["messages"][0]["content"]
    assert video["type"] == "video_url"


def test_refusals_come_before_work(
    server: ChatServer, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServerRefusedError, match="did you mean 'served/model'"):
        connect(server.url, "served/modl", plan_as=tiny_folder)
    server.models.append({"id": "./no-checkpoint"})
    with pytest.raises(CheckpointError, match="plan_as="):
        connect(server.url, "./no-checkpoint")
    with pytest.raises(CheckpointError, match="nowhere"):
        connect(server.url, MODEL, plan_as="./nowhere")
    with pytest.raises(ConfigError, match="base_url"):
        connect("localhost", MODEL)
    server.key = "sk-the-right-one"
    with pytest.raises(ServerRefusedError, match="export LLAVA_VIDEO_API_KEY"):
        connect(server.url, MODEL, plan_as=tiny_folder)
    monkeypatch.setenv("LLAVA_VIDEO_API_KEY", "sk-a-wrong-one")
    with pytest.raises(ServerRefusedError, match="does not accept") as raised:
        connect(server.url, MODEL, plan_as=tiny_folder)
    assert "sk-a-wrong-one" not in str(raised.value)
    monkeypatch.setenv("LLAVA_VIDEO_API_KEY", "sk-the-right-one")
    connect(server.url, MODEL, plan_as=tiny_folder).close()
    server.kill()
    with pytest.raises(ServerError, match="cannot be reached"):
        connect(server.url, MODEL, plan_as=tiny_folder)


def test_a_model_that_fuses_is_refused(
    server: ChatServer, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava_video import connecting

    read = connecting.read_spec

    def fused(name: Path) -> object:
        spec = read(name)
        return dataclasses.replace(
            spec, geometry=dataclasses.replace(spec.geometry, compressed_side=1)
        )

    monkeypatch.setattr(connecting, "read_spec", fused)
    with pytest.raises(ConfigError, match="fuses"):
        connect(server.url, MODEL, plan_as=tiny_folder)


def test_a_servers_trouble_is_no_hole_in_a_timeline(
    server: ChatServer, tiny_folder: Path, tiny_clip: Path
) -> None:
    settings = RemoteSettings(retry_for_s=0.0)
    with connect(server.url, MODEL, plan_as=tiny_folder, settings=settings) as model:
        server.faults.append(truncate(0))
        with pytest.raises(ServerError):
            model.timeline(tiny_clip, WHICH, window_s=0.7, summary=False, **OPTIONS)
