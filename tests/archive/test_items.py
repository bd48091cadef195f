"""Inputs name the same items in the same order however they are typed, or are refused at once."""

import os
from pathlib import Path
from typing import Any

import pytest

from llava_video import backends
from llava_video.archive import items as items_module
from llava_video.archive.items import MOST_TOLD, items_of
from llava_video.errors import ConfigError, ManifestError, SourceError
from llava_video.video.settings import FetchSettings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of videos and other things, which is also where we are."""
    root = tmp_path / "videos"
    videos = ("b.mp4", "a.MKV", "a/z.mov", "a.b/1.webm", "a[1].mp4")
    for name in (*videos, "notes.md", ".hidden.mp4", ".git/c.mp4", "x.bin"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    monkeypatch.chdir(root)
    return root


def addresses(*inputs: Any, **options: Any) -> list[str]:
    found = list(items_of(list(inputs), **options))
    assert [item.number for item in found] == list(range(len(found)))
    return [item.address for item in found]


def refused(*inputs: Any, **options: Any) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        items_of(list(inputs), **options)  # before anything is drawn
    return caught.value


def test_a_folder_is_its_videos_by_name_and_those_below(folder: Path) -> None:
    expected = ["a/z.mov", "a.MKV", "a.b/1.webm", "a[1].mp4", "b.mp4"]
    assert addresses(str(folder)) == [str(folder / name) for name in expected]
    assert addresses(folder) == addresses(str(folder) + "/")
    assert addresses(".") == expected


def test_inputs_keep_their_order(folder: Path) -> None:
    assert addresses("b.mp4", "a", "x.bin") == ["b.mp4", "a/z.mov", "x.bin"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.mp4", ["a[1].mp4", "b.mp4"]),
        ("*", ["a.MKV", "a[1].mp4", "b.mp4"]),
        ("**/*.*", ["a.MKV", "a.b/1.webm", "a/z.mov", "a[1].mp4", "b.mp4"]),
        ("*.bi?", ["x.bin"]),
        ("a[1].mp4", ["a[1].mp4"]),  # a file of that very name
    ],
)
def test_patterns(folder: Path, pattern: str, names: list[str]) -> None:
    assert addresses(pattern) == names


def test_lists_among_other_inputs(folder: Path) -> None:
    (folder / "list.txt").write_text("# ours\nb.mp4\n\nhttps://example.org/c.mp4?x=1\n")
    (folder / "more.csv").write_text("video,prompt,start,end,name\na.MKV,Who?,5,1:10,A\n")
    found = list(items_of(["a/z.mov", "list.txt", "more.csv"]))
    assert [item.address for item in found] == [
        *("a/z.mov", "b.mp4", "https://example.org/c.mp4?x=1", "a.MKV")
    ]
    last = found[-1]
    assert (last.prompts, last.start_s, last.end_s, last.name) == (("Who?",), 5.0, 70.0, "A")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("none.mp4", "'none.mp4' is not there"),
        ("none*.mp4", "matches no video"),
        ("notes.*", "matches no video"),
        (".git/empty", "holds no video"),
    ],
)
def test_what_names_nothing_is_refused(folder: Path, typed: str, message: str) -> None:
    (folder / ".git/empty").mkdir()
    assert message in refused("b.mp4", typed).message
    assert refused().message == "no inputs are named."


def test_all_that_is_wrong_is_told_at_once(folder: Path) -> None:
    bad = "".join(f"v{number}.mp4,x\n" for number in range(30))
    (folder / "list.csv").write_text("video,start\nb.mp4,1\n" + bad)
    error = refused("none.mp4", "list.csv", "gone/")
    assert error.message.startswith("32 of the inputs cannot be used:")
    assert error.message.endswith("and 12 more")
    assert len(error.problems) == MOST_TOLD
    assert error.problems[1].startswith("list.csv, line 3: 'x' is not a time")
    assert error.hint == "check the path."


@pytest.mark.parametrize("second", ["b.mp4", "./b.mp4", "*.mp4", "{cwd}/b.mp4", "list.txt"])
def test_the_same_entry_twice_is_refused(folder: Path, second: str) -> None:
    (folder / "list.txt").write_text("b.mp4\n")
    error = refused("b.mp4", second.format(cwd=Path.cwd()))
    assert "is there before, as input 0" in error.message


def test_two_spans_or_prompts_of_one_video_are_two_entries(folder: Path) -> None:
    (folder / "list.csv").write_text(
        "video,start,end,prompt\nb.mp4,0,5,\nb.mp4,5,9,\nb.mp4,5,9,Who?\n"
    )
    assert len(addresses("list.csv")) == 3


def test_a_list_that_changes_meanwhile_is_noticed(folder: Path) -> None:
    (folder / "list.csv").write_text("video,start\nb.mp4,1\n")
    drawn = items_of(["list.csv"])
    (folder / "list.csv").write_text("video,start\nb.mp4,now\n")
    with pytest.raises(ManifestError, match="changed while they were read"):
        list(drawn)


def test_a_folder_that_grows_meanwhile_is_as_it_was(folder: Path) -> None:
    drawn = items_of(["a"])
    (folder / "a/a.mp4").write_bytes(b"x")
    assert [item.address for item in drawn] == ["a/z.mov"]


def test_marks_of_a_prompt_need_a_list_that_fills_them(folder: Path) -> None:
    assert "asks for {title}" in refused("b.mp4", prompts=("What of {title}?",)).message
    (kept,) = items_of(["b.mp4"], prompts=('Say {{title}} as {"a": 1}',))
    assert kept.prompts == ('Say {title} as {"a": 1}',)
    (plain,) = items_of(["b.mp4"], prompts=('Answer {"a": 1}',))
    assert plain.prompts == ()


def test_columns_that_lists_do_not_have(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no 'vidoe'.*video, prompt"):
        items_of(["b.mp4"], columns={"vidoe": "x"})
    with pytest.raises(ConfigError, match="one text"):
        items_of("b.mp4")


def test_buckets_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def listed(url: str, settings: FetchSettings) -> list[str]:
        asked.append(url)
        if "private" in url:
            raise SourceError("s3://private may not be read.", "check the credentials.")
        return [f"s3://bucket/f/{name}" for name in ("a.mp4", "b.json", "c.mkv")]

    monkeypatch.setattr(items_module, "list_objects", listed)
    found = ["s3://bucket/f/a.mp4", "s3://bucket/f/c.mkv"]
    assert addresses("s3://bucket/f/") == addresses("s3://bucket/f") == found
    assert addresses("s3://bucket/*/") == found
    assert asked == ["s3://bucket/f/", "s3://bucket/f", "s3://bucket/*/"]
    # One object, and what is no bucket, is not listed.
    assert addresses("gs://bucket/a.mp4", "https://example.org/?v=*") == [
        *("gs://bucket/a.mp4", "https://example.org/?v=*")
    ]
    assert len(asked) == 3
    assert "may not be read" in refused("s3://private/").message


def test_a_secret_in_an_address_is_not_told() -> None:
    url = "https://me:secret@example.org/a.mp4?token=secret"
    assert "secret" not in str(refused(url, url))
    assert "AAAA" not in str(refused("data:video/mp4;base64,AAAA", "data:video/mp4;base64,AAAA"))


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9.mp4")).write_bytes(b"x")
    (found,) = addresses(tmp_path)
    assert Path(found).exists()


def test_no_package_no_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "version", lambda name: None)
    assert "s3fs" in refused("s3://bucket/f/").message
