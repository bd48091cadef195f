"""What rows say is found, with its span; any text is a query; an index is what its rows are."""

import sqlite3
from pathlib import Path

import archive_rows as made
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llava_video.archive.ledger import Ledger
from llava_video.archive.search import INDEX, Hit, build, is_fresh, search
from llava_video.archive.shards import seal
from llava_video.archive.sheets import sheet_path
from llava_video.errors import ConfigError, SourceError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = [
        (0.0, 30.0, "An empty yard."),
        (30.0, 60.0, "A red truck reverses into the yard. The driver's door opens."),
        (60.0, 90.0, "Red lights; a blue truck drives away."),
    ]
    rows = [
        made.timeline_row(0, captions, address="yard.mp4"),
        made.ask_row(1, {"Which animal?": "A dog_x.", "What else?": "Two café chairs."}),
        made.failed_row(2),
        made.caption_row(3, "before " * 40 + "the needle lies here " + "after " * 40),
        made.caption_row(4, 'NEAR OR AND NOT "quoted" text:colon (bracket) -minus ^caret'),
    ]
    return made.sealed_run(tmp_path_factory.mktemp("run"), rows)


def found(folder: Path, query: str) -> list[tuple[int, str, float]]:
    return [(hit.number, hit.kind, hit.start_s) for hit in search(folder, query)]


def test_a_sentence_finds_its_span(folder: Path) -> None:
    best = search(folder, "red truck reversing")[0]
    assert (best.number, best.name, best.address) == (0, "yard.mp4", "yard.mp4")
    assert (best.kind, best.start_s, best.end_s) == ("caption", 30.0, 60.0)
    assert best.snippet == "A red truck reverses into the yard. The driver's door opens."
    assert [best.snippet[start:end] for start, end in best.marked] == ["red", "truck", "reverses"]
    assert best.text == best.snippet
    # The words stand in the summary of all windows, too, which is longer and so comes later.
    assert found(folder, "red truck reversing") == [(0, "caption", 30.0), (0, "summary", 0.0)]


def test_all_words_must_be_there_in_one_text(folder: Path) -> None:
    assert found(folder, "red dog") == []
    assert {hit.start_s for hit in search(folder, "red truck")} == {0.0, 30.0, 60.0}
    assert {hit.start_s for hit in search(folder, "red truck") if hit.kind == "caption"} == {30, 60}


def test_phrases_and_beginnings_are_exact(folder: Path) -> None:
    assert found(folder, '"red truck"') == [(0, "caption", 30.0), (0, "summary", 0.0)]
    assert found(folder, '"truck red"') == []
    assert found(folder, '"reversing"') == []
    assert found(folder, "reversin*") == []
    assert found(folder, "rev*")[0] == (0, "caption", 30.0)
    assert found(folder, "ev*") == []


def test_answers_are_found_with_their_questions(folder: Path) -> None:
    (hit,) = search(folder, "CAFE chair")
    assert (hit.number, hit.kind, hit.prompt) == (1, "answer", "What else?")
    assert (hit.start_s, hit.end_s) == (0.0, 4.0)
    for written in ("cafe\u0301", "ca\u0301fe", "c\u00e1fe"):
        assert search(folder, written) == search(folder, "cafe") != []
    assert found(folder, "animal") == []  # asked, never said
    assert found(folder, "dog_x") == [(1, "answer", 0.0)]


def test_a_snippet_is_cut_around_what_was_found(folder: Path) -> None:
    (hit,) = search(folder, "needle")
    assert hit.snippet.startswith("…")
    assert hit.snippet.endswith("…")
    ((start, end),) = hit.marked
    assert hit.snippet[start:end] == "needle"
    assert len(hit.snippet.split()) <= 26
    assert hit.text.startswith("before before")


@pytest.mark.parametrize(
    "query",
    [
        "driver's",
        '"quoted',
        "NEAR(OR colon)",
        "text:colon",
        "-minus",
        "^caret",
        "(bracket",
        "quoted AND",
        "NOT",
        "OR OR",
        "text'; DROP TABLE entries; --",
        "colon\x00text",
        "*minus",
    ],
)
def test_marks_and_words_of_the_query_language_are_plain_words(folder: Path, query: str) -> None:
    hits = search(folder, query)
    if "DROP" not in query:
        assert hits


@given(query=st.text(alphabet=st.characters() | st.sampled_from("\"*()^-:+{}'.NEAR"), max_size=20))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_query(folder: Path, query: str) -> None:
    try:
        search(folder, query)
    except ConfigError as error:
        assert "holds no word" in error.message  # noqa: PT017  # every other text must not raise


@pytest.mark.parametrize("query", ["", "   ", '""', "* - ( ^", "_"])
def test_a_query_without_words_is_refused(folder: Path, query: str) -> None:
    with pytest.raises(ConfigError, match="holds no word"):
        search(folder, query)


def test_the_best_comes_first_and_equals_in_the_order_of_inputs(tmp_path: Path) -> None:
    texts = ["a dog " + "and so on " * 20, "a dog", "a dog", "a dog and a dog and a dog", "a cat"]
    made.sealed_run(tmp_path, [made.caption_row(n, text) for n, text in enumerate(texts)])
    assert [hit.number for hit in search(tmp_path, "dog")] == [3, 1, 2, 0]


def test_the_limit_is_kept(folder: Path) -> None:
    assert len(search(folder, "red", limit=1)) == 1
    with pytest.raises(ConfigError, match="limit = 0"):
        search(folder, "red", limit=0)


def contents(folder: Path) -> list[tuple[object, ...]]:
    index = sqlite3.connect(folder / INDEX)
    rows = list(index.execute("SELECT * FROM entries ORDER BY id"))
    index.close()
    return rows


def test_an_index_made_again_is_the_same(folder: Path) -> None:
    assert build(folder) == 8
    first, hits = contents(folder), search(folder, "red")
    (folder / INDEX).unlink()
    assert search(folder, "red") == hits
    assert contents(folder) == first


def test_an_index_follows_the_rows(tmp_path: Path) -> None:
    rows = [made.caption_row(number, f"thing{number}") for number in range(3)]
    seal(tmp_path, 0, rows[:1], first=0)
    assert [hit.number for hit in search(tmp_path, "thing*")] == [0]
    assert is_fresh(tmp_path)
    seal(tmp_path, 1, rows[1:2], first=1)
    assert not is_fresh(tmp_path)
    assert [hit.number for hit in search(tmp_path, "thing*")] == [0, 1]
    (tmp_path / INDEX).write_text("no database, and longer than its header would be" * 9)
    assert [hit.number for hit in search(tmp_path, "thing*")] == [0, 1]


def test_an_index_follows_the_ledger_before_a_shard_is_sealed(ledger: Ledger) -> None:
    folder, units = ledger.folder, [made.unit(number) for number in range(3)]
    ledger.add(units)
    ledger.claim(3, "w")
    with pytest.raises(ConfigError, match="holds no rows"):
        search(folder, "thing*")
    for number in (2, 0):
        ledger.finish(units[number].key, made.caption_row(number, f"thing{number}"))
        assert units[number].number in {hit.number for hit in search(folder, "thing*")}
    assert is_fresh(folder)
    assert [hit.number for hit in search(folder, "thing*")] == [0, 2]


def test_shards_of_machines_are_one(tmp_path: Path) -> None:
    for shard, texts in enumerate((["a dog", "a cat"], ["a dog and a dog and a dog", "a hen"])):
        rows = [made.caption_row(number, text) for number, text in enumerate(texts)]
        made.sealed_run(tmp_path / f"shard-{shard}-of-2", rows)
    texts = [hit.text for hit in search(tmp_path, "dog")]
    assert texts == ["a dog and a dog and a dog", "a dog"]
    assert [hit.text for hit in search(tmp_path, "dog", limit=1)] == texts[:1]


def test_a_hit_has_the_picture_of_its_frames(tmp_path: Path) -> None:
    rows = [made.caption_row(0, "a dog"), made.caption_row(1, "a dog again")]
    seal(tmp_path, 0, rows, first=0)
    path = sheet_path(tmp_path, rows[1]["key"])
    path.parent.mkdir()
    path.write_bytes(b"picture")
    assert [hit.sheet for hit in search(tmp_path, "dog")] == [None, str(path)]


def test_a_hit_has_the_frame_nearest_to_its_moment(tmp_path: Path) -> None:
    spoken = [(0.0, 30.0, "a dog"), (30.0, 60.0, "a cat"), (60.0, 70.0, "a dog again")]
    row = made.timeline_row(0, spoken)
    seal(tmp_path, 0, [row], first=0)
    assert [hit.frame for hit in search(tmp_path, "cat")] == [None, None]
    place = tmp_path / "frames" / row["key"][:16]
    place.mkdir(parents=True)
    for time_ms in (14_000, 45_500, 66_000):
        (place / f"{time_ms:09d}.jpg").write_bytes(b"picture")
    frames = {hit.text: hit.frame for hit in search(tmp_path, "dog")}
    assert frames["a dog"] == str(place / "000014000.jpg")
    assert frames["a dog again"] == str(place / "000066000.jpg")
    (caption,) = (hit for hit in search(tmp_path, "cat") if hit.kind == "caption")
    assert caption.frame == str(place / "000045500.jpg")


def test_odd_names_and_texts_are_indexed(tmp_path: Path) -> None:
    row = made.caption_row(0, "a \x02red\x03 \x00 dog \ud800", address="x\udce9/a.mp4")
    seal(tmp_path, 0, [row], first=0)
    (hit,) = search(tmp_path, "red dog")
    assert isinstance(hit, Hit)
    assert hit.address == "x\\udce9/a.mp4"
    assert [hit.snippet[start:end] for start, end in hit.marked] == ["red", "dog"]


def test_an_index_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(tmp_path, 0, [made.caption_row(0, "a dog")], first=0)
    monkeypatch.setattr("llava_video.archive.search.INDEX", "nowhere/search.sqlite")
    with pytest.raises(SourceError, match="cannot be written: unable to open"):
        search(tmp_path, "dog")


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no rows"):
        search(tmp_path, "dog")
    assert list(tmp_path.iterdir()) == []
