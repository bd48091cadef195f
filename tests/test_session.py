"""Turns of a conversation: equal to fresh requests, the visuals encoded once, the cache freed."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from safetensors import safe_open

from llava_video.api import LlavaVideo, load
from llava_video.engine.request import Event, Progress
from llava_video.errors import BudgetError, CapacityError, CheckpointError, ConfigError
from llava_video.model.sources import Sources
from llava_video.model.spec import ModelSpec
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.planning.memory import Setup
from llava_video.session import _weights_of

SHORT = {"max_new_tokens": 6, "num_frames": 4, "loop_guard": False}


def test_chat_equals_a_fresh_request_and_encodes_once(
    tiny_folder: Path, tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    told: list[Event] = []

    def stages() -> set[str]:
        return {event.stage for event in told if isinstance(event, Progress)}

    with load(tiny_folder, on_event=told.append) as watched, watched.chat(tiny_clip, **SHORT) as c:
        first = c.ask("What is this?")
        assert "vision" in stages()
        told.clear()
        second = c.ask("And then?")
        assert "vision" not in stages()
        turns = c.turns
    assert first.text == tiny_model.ask(tiny_clip, "What is this?", **SHORT).text
    assert second.usage.reused_tokens > second.usage.visual_tokens
    assert second.text == tiny_model.ask(tiny_clip, turns[:3], **SHORT).text


def test_a_conversation_that_outgrows_the_context_is_a_budget_error(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    with tiny_model.chat(tiny_clip, **SHORT) as chat:
        chat.ask("What is this?")
        with pytest.raises(BudgetError, match="the context holds"):
            chat.ask("word " * tiny_model.spec.geometry.context_tokens)
        assert len(chat.turns) == 2


def test_closing_frees_the_cache(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    arena = tiny_model.engine.arena  # type: ignore[attr-defined]  # the scheduler's
    before = arena.used_tokens
    with tiny_model.chat(tiny_clip, **SHORT) as chat:
        chat.ask("What is this?")
        assert arena.used_tokens > before
        chat.ask("Why?")
    assert arena.used_tokens == before


def test_a_failed_turn_leaves_the_conversation_as_it_was(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    with tiny_model.chat(tiny_clip, **SHORT) as chat:
        first = chat.ask("What is this?")
        with pytest.raises(ConfigError, match="empty"):
            chat.ask("  ")
        assert [turn.text for turn in chat] == ["What is this?", first.text]


def test_text_alone_can_be_chatted_about(tiny_model: LlavaVideo) -> None:
    with tiny_model.chat(**SHORT) as chat:
        answer = chat.ask("Hello")
    assert answer.frames == ()
    assert answer.usage.visual_tokens == 0


def test_a_small_context_still_holds_a_short_conversation(tmp_path: Path, tiny_clip: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model", context_tokens=1024)
    with load(folder) as model, model.chat(tiny_clip, num_frames=4) as chat:
        first = chat.ask("What is this?")
    assert first.plan.max_new_tokens == 512


def test_a_closed_conversation_stays_closed_and_marks_stay_in_the_first_turn(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    with tiny_model.chat(tiny_clip, **SHORT) as chat:
        chat.ask("What is this?")
        later = chat.ask("What does <image> mean?")
    assert later.usage.reused_tokens > later.usage.visual_tokens
    with pytest.raises(ConfigError, match="was closed"):
        chat.ask("Again?")


def test_a_saved_conversation_goes_on_as_if_it_had_never_stopped(
    tiny_folder: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "talk.safetensors"
    with load(tiny_folder) as model, model.chat(tiny_clip, **SHORT) as talk:
        talk.ask("What is shown?")
        talk.save(path)
        expected = talk.ask("And then?")
    told: list[Event] = []
    with load(tiny_folder, on_event=told.append) as model:
        with model.resume(path, max_new_tokens=6, loop_guard=False) as talk:
            assert [turn.role for turn in talk] == ["user", "assistant"]
            going_on = talk.ask("And then?")
        assert going_on.text == expected.text
        assert going_on.usage == expected.usage
        assert going_on.frames == expected.frames
        assert not any(isinstance(e, Progress) and e.stage == "vision" for e in told)
    assert model.engine.arena.used_tokens == 0


def test_a_saved_conversation_of_other_weights_is_refused(
    tiny_folder: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "talk.safetensors"
    with load(tiny_folder, quantize="int8") as model, model.chat(tiny_clip, **SHORT) as talk:
        with pytest.raises(ConfigError, match="ask something first"):
            talk.save(path)
        talk.ask("What is shown?")
        talk.save(path)
    with load(tiny_folder, quantize="plain") as model:
        with pytest.raises(CheckpointError, match=r"int8.*plain"):
            model.resume(path)
        with pytest.raises(CheckpointError):
            model.resume(tiny_folder / "model.safetensors")  # a file, and no cache
        assert model.engine.arena.used_tokens == 0


def test_a_folder_that_holds_other_weights_now_is_noticed(tiny_clip: Path, tmp_path: Path) -> None:
    folder, path = tmp_path / "model", tmp_path / "talk.safetensors"
    write_tiny_checkpoint(folder, seed=1)
    with load(folder) as model, model.chat(tiny_clip, **SHORT) as talk:
        talk.ask("What is shown?")
        talk.save(path)
    shutil.rmtree(folder)
    write_tiny_checkpoint(folder, seed=2)
    with load(folder) as model:
        with pytest.raises(CheckpointError, match="was made by the weights"):
            model.resume(path)
        assert model.engine.arena.used_tokens == 0


def test_every_file_of_the_weights_counts(tmp_path: Path) -> None:
    """Those of a projector alone, of its base, and of a tower in a folder of its own."""
    base, tower = tmp_path / "base", tmp_path / "tower"
    for folder in (base, tower):
        folder.mkdir()
    files = [tmp_path / "mm_projector.bin", base / "pytorch_model.bin", tower / "model.safetensors"]
    for file in files:
        file.write_bytes(b"weights")
    sources = Sources(kind="projector", folder=tmp_path, base=base, tower=tower)
    facts = {"sources": sources, "name": "m", "setup": Setup(), "server": None}
    spec = cast("ModelSpec", SimpleNamespace(**facts))
    names = {_weights_of(spec)}
    for file in files:
        file.write_bytes(b"others!")
        names.add(_weights_of(spec))
    assert len(names) == 4
    (tmp_path / "config.json").write_text("{}")
    assert _weights_of(spec) in names


class TestFused:
    """Each turn sees the video anew, and is answered like a fresh request."""

    def test_turns_equal_fresh_requests(self, mini_model: LlavaVideo, tiny_clip: Path) -> None:
        arena = mini_model.engine.arena  # type: ignore[attr-defined]  # the scheduler's
        with mini_model.chat(tiny_clip, **SHORT) as chat:
            answers = [chat.ask("What is this?")]
            answers.append(chat.ask("And then?"))
            assert arena.used_tokens == 0  # no turn could begin with it
            turns = chat.turns
        assert arena.used_tokens == 0
        for answer, asked in zip(answers, (turns[:1], turns[:3]), strict=True):
            fresh = mini_model.ask(tiny_clip, asked, **SHORT)
            assert answer.text == fresh.text
            assert answer.usage == fresh.usage
            assert answer.usage.reused_tokens == 0
            assert answer.frames == fresh.frames
            assert len(answer.frames) == 4
            assert answer.coverage == fresh.coverage
            assert answer.thumbnails is not None
            assert len(answer.thumbnails) == 4
        assert mini_model.ask(tiny_clip, "And then?", **SHORT).text != answers[1].text

    def test_a_saved_conversation_goes_on(
        self, mini_model: LlavaVideo, tiny_clip: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "talk.safetensors"
        with mini_model.chat(tiny_clip, **SHORT) as chat:
            chat.ask("What is this?")
            chat.save(path)
            expected, turns = chat.ask("And then?"), chat.turns
        with safe_open(path, framework="np") as file:
            assert not list(file.keys())
        with mini_model.resume(path, max_new_tokens=6, loop_guard=False) as chat:
            assert chat.turns == turns[:2]
            again = chat.ask("And then?")
            assert (again.text, again.usage) == (expected.text, expected.usage)
            assert len(again.frames) == 4
        assert mini_model.engine.arena.used_tokens == 0  # type: ignore[attr-defined]  # as above

    def test_a_failed_turn_loses_nothing(
        self, mini_model: LlavaVideo, tiny_clip: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "talk.safetensors"
        with mini_model.chat(tiny_clip, **SHORT) as chat:
            chat.ask("What is this?")
            turns = chat.turns
            with pytest.raises(BudgetError, match="the context holds"):
                chat.ask("word " * mini_model.spec.geometry.context_tokens)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(mini_model.engine.arena, "limit_bytes", 1)  # type: ignore[attr-defined]
                with pytest.raises(CapacityError):
                    chat.ask("And then?")
            chat.save(path)
        with pytest.raises(ConfigError, match="nothing to save"):
            chat.save(path)
        with mini_model.resume(path) as chat:
            assert chat.turns == turns
