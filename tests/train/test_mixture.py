"""Files of conversations become records: mixed by strategy and weight, marks told from media."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llava_video.errors import ConfigError, ExampleError
from llava_video.model.prompt import Turn
from llava_video.train.mixture import Media, Record, read_mixture
from llava_video.train.settings import SourceSettings


def said(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[idx % 2], "value": one} for idx, one in enumerate(texts)]


def record(*texts: str, **media: Any) -> Record:
    return Record(name="one", values={"conversations": said(*texts), **media}, folder="m")


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    path = tmp_path / "ten.json"
    path.write_text(json.dumps([{"id": i, "conversations": said("Q", "A")} for i in range(10)]))
    return path


def ids(*sources: SourceSettings, seed: int = 0) -> list[int]:
    return [one.values["id"] for one in read_mixture(sources, seed)]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("all", [*range(10)]),
        ("first:3", [0, 1, 2]),
        ("first:25%", [0, 1, 2]),  # rounded up
        ("end:2", [8, 9]),
        ("end:15%", [8, 9]),
        ("first:40", [*range(10)]),
    ],
)
def test_strategies(ten: Path, strategy: str, expected: list[int]):
    assert ids(SourceSettings(path=str(ten), sampling_strategy=strategy)) == expected


def test_random_ones_follow_from_the_seed(ten: Path):
    source = SourceSettings(path=str(ten), sampling_strategy="random:40%")
    first = ids(source)
    assert len(set(first)) == 4
    assert first == ids(source)
    assert any(first != ids(source, seed=seed) for seed in range(1, 5))
    # Two sources of one file draw apart.
    both = ids(source, source)
    assert both[:4] == first
    assert any(ids(*[source] * 5)[i * 4 : i * 4 + 4] != first for i in range(1, 5))


@pytest.mark.parametrize(
    ("weight", "counts"), [(1.0, {1: 10}), (2.0, {2: 10}), (0.5, {1: 5}), (2.3, {2: 7, 3: 3})]
)
def test_weights_count_copies(ten: Path, weight: float, counts: dict[int, int]):
    found = Counter(ids(SourceSettings(path=str(ten), weight=weight)))
    assert Counter(found.values()) == counts


def test_lines_and_braces(tmp_path: Path):
    for name in "ab":
        lines = [json.dumps({"id": f"{name}{i}"}) for i in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n\n")
    path = str(tmp_path / "{a, b}.jsonl")
    assert ids(SourceSettings(path=path)) == ["a0", "a1", "b0", "b1"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path, end: bytes):
    texts = ["a\u2028b", "a\u2029b", "a\x85b", "\u2028"]
    rows = [json.dumps({"conversations": said(one, "A")}, ensure_ascii=False) for one in texts]
    path = tmp_path / "lines.jsonl"
    path.write_bytes(end.join(row.encode() for row in [*rows, ""]))
    found = read_mixture([SourceSettings(path=str(path))], 0)
    assert [one.values["conversations"][0]["value"] for one in found] == texts


@pytest.mark.parametrize("text", ['{"id": 1}', "[1, 2]", "[{", "\xff"])
def test_files_of_another_kind_are_refused(tmp_path: Path, text: str):
    path = tmp_path / "data.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"data\.json"):
        read_mixture([SourceSettings(path=str(path))], 0)


def test_a_mixture_of_nothing_is_refused(ten: Path):
    source = SourceSettings(path=str(ten), sampling_strategy="first:0")
    with pytest.raises(ConfigError, match="no example"):
        read_mixture([source], 0)


def test_marks_take_their_media_in_order():
    turns, media = record("<image>\nA?", "B", "<image> C?", "D", image=["1", "2"]).conversation()
    assert media == (Media("image", "m/1"), Media("image", "m/2"))
    assert turns == (
        Turn("user", "<image>\nA?"),
        Turn("assistant", "B"),
        Turn("user", "<image>\nC?"),
        Turn("assistant", "D"),
    )
    mixed = record("Is <video> like <image>?", "No", image="p.png", video="v.mp4")
    turns, media = mixed.conversation()
    assert media == (Media("video", "m/v.mp4"), Media("image", "m/p.png"))
    assert turns[0].text == "Is <image> like <image>?"
    # The authors' files write <image> for a video.
    for mark in ("<image>", "<video>"):
        turns, media = record(f"What? {mark}", "A", video="v.mp4").conversation()
        assert media == (Media("video", "m/v.mp4"),)
        assert turns[0].text == "<image>\nWhat?"


def test_absolute_paths_and_addresses_stay():
    for path in ("/x/a.png", "https://example.org/a.png"):
        _, media = record("<image>", "A", image=path).conversation()
        assert media[0].path == path


@pytest.mark.parametrize(
    ("texts", "media", "kind"),
    [
        (("What?", "A"), {"image": "a.png"}, "marks"),
        (("<image>", "A"), {}, "marks"),
        (("<image> <image>", "A"), {"image": "a.png"}, "marks"),
        (("<video>", "A"), {"image": "a.png"}, "marks"),
        (("<image>", "A"), {"image": ["a.png", 3]}, "marks"),
        (("Q", " \n"), {}, "empty answer"),
        (("Q", "A", "Q"), {}, "conversation"),
        ((), {}, "conversation"),
    ],
)
def test_what_cannot_be_right_is_told(texts: tuple[str, ...], media: dict[str, Any], kind: str):
    with pytest.raises(ExampleError) as caught:
        record(*texts, **media).conversation()
    assert caught.value.kind == kind
    assert str(caught.value).startswith("one ")


@pytest.mark.parametrize("values", [{}, {"conversations": "Hi"}, {"conversations": ["Hi"]}])
def test_entries_without_a_conversation(values: dict[str, Any]):
    with pytest.raises(ExampleError):
        Record(name="one", values=values, folder="").conversation()


def test_what_is_known_before_anything_is_opened():
    assert record("One two", "three").num_words == 3
    assert record("Q", "A").modality == "text"
    assert record("Q", "A", image="a").modality == "image"
    assert record("Q", "A", image="a", video="b").modality == "video"
    assert Record(name="one", values={}, folder="").num_words == 0


@pytest.mark.parametrize("said", [5, True, 1.5, {"from": "human"}, "Hi", [3]])
def test_the_words_of_what_is_no_conversation_are_none(said: Any):
    """An order of examples is made of words before any record is looked into and counted broken."""
    one = Record(name="one", values={"conversations": said, "image": "a"}, folder="")
    assert one.num_words == 0
    with pytest.raises(ExampleError) as caught:
        one.conversation()
    assert caught.value.kind == "conversation"
