"""A written folder becomes questions with groups, and captions that are held against the truth."""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llava_video.api import LlavaVideo
from llava_video.engine.request import Answer, Event, Finished, Request
from llava_video.errors import ConfigError
from llava_video.eval.report import GroupScore
from llava_video.eval.report_table import report_lines
from llava_video.eval.running import evaluate
from llava_video.eval.settings import EvalSettings
from llava_video.eval.small_world import groups_of, read_captions, read_world
from llava_video.world.dataset import read_records, write_world
from llava_video.world.question import ANSWERS
from llava_video.world.settings import WorldSettings

_SETTINGS = WorldSettings(sizes_px=((64, 64),), lengths_s=(6.0,), still_share=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), 4, settings=_SETTINGS).parent


def test_every_kind_has_a_skill() -> None:
    skills = Counter(groups_of(kind)["skill"] for kind in ANSWERS)
    assert (skills["yes/no"], skills["count"]) == (11, 3)
    assert set(skills) == {
        *("yes/no", "count", "shape", "colour", "size", "place", "direction", "side", "action"),
        *("which", "hits", "order", "when", "sign"),
    }
    in_order = [kind for kind in ANSWERS if "events" in groups_of(kind)]
    assert in_order == ["order", "before"]
    assert groups_of("something of mine") == {
        "type": "something of mine",
        "skill": "something of mine",
    }


def test_all_questions_are_read_and_no_caption(folder: Path) -> None:
    kinds = [a["kind"] for r in read_records(folder / "train.jsonl") for a in r["answers"]]
    due = [kind for kind in kinds if kind in ANSWERS]
    read = list(read_world(folder))
    assert [example.groups["type"] for example in read] == due
    assert len({example.id for example in read}) == len(due) > 30
    assert {example.cluster for example in read} == {f"videos/{k:06d}.mp4" for k in range(4)}
    assert not any(example.trouble for example in read)


def test_captions_are_measured_against_their_clip(folder: Path) -> None:
    read = list(read_captions(folder))
    assert Counter(e.groups["type"] for e in read) == {"short": 4, "detailed": 4, "timed": 4}
    for example in read:
        assert example.measure is not None
        right = {m.name: m for m in example.measure(str(example.answer))}
        assert right["objects named"].part == right["objects named"].whole >= 1
        assert right["invented"].part == 0
        silent = {m.name: m for m in example.measure("")}
        assert silent["objects named"].part == 0
        assert silent["objects named"].whole == right["objects named"].whole
    assert len({example.prompt for example in read}) > 3
    assert all(example.max_new_tokens == 400 for example in read)


def test_the_folder_says_what_was_certain(folder: Path, tmp_path: Path) -> None:
    """Looked at every five seconds, a clip of six shows nothing for certain that happens."""
    facts = json.loads((folder / "world.json").read_text())
    facts["settings"]["sampled_hz"] = 0.2
    (tmp_path / "world.json").write_text(json.dumps(facts))
    (tmp_path / "train.jsonl").write_text((folder / "train.jsonl").read_text())
    (tmp_path / "videos").symlink_to(folder / "videos")

    def due(place: Path) -> int:
        measured = [e.measure(str(e.answer)) for e in read_captions(place) if e.measure]
        return sum(m.whole for measures in measured for m in measures if m.name == "events named")

    assert due(folder) > 10
    assert due(tmp_path) == 0
    (tmp_path / "world.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no settings"):
        list(read_captions(tmp_path))


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    item = {"id": "a", "video": "v.mp4", "answers": [{"kind": "short", "text": "Q", "answer": "A"}]}
    (tmp_path / "w.jsonl").write_text(f"no json\n{json.dumps(item)}\n")
    broken, without = read_captions(tmp_path)
    assert "no JSON" in str(broken.trouble)
    assert "has no 'truth'" in str(without.trouble)


def zorked(truth: dict[str, Any]) -> dict[str, Any]:
    return truth | {"things": [truth["things"][0] | {"shape": "zork"}, *truth["things"][1:]]}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda row: row | {"video": "v.mp4"}, "v.mp4 is not in"),
        (lambda row: row | {"truth": {"x": 1}}, "truth is no clip: Scene has no setting 'x'"),
        (lambda row: row | {"truth": 7}, "truth is no clip"),
        (lambda row: row | {"truth": zorked(row["truth"])}, "truth is no clip: KeyError('zork')"),
        (lambda row: row | {"truth": row["truth"] | {"rate_hz": 0.0}}, "truth is no clip"),
        (lambda row: row | {"truth": row["truth"] | {"width_px": "a"}}, "width_px = 'a'"),
        (lambda row: row | {"answers": 2 * row["answers"]}, "has 2 answers"),
        (lambda row: row | {"answers": [{"kind": "short", "text": "Q"}]}, "has no 'answer'"),
    ],
)
def test_a_caption_that_cannot_be_judged_is_told_before_it_is_asked(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], found: str
) -> None:
    """And it ends neither the reading nor the evaluation: the next one is whole."""
    rows = [r for r in read_records(folder / "train.jsonl") if r["answers"][0]["kind"] == "short"]
    lines = [json.dumps(change(rows[0])), json.dumps(rows[1])]
    (tmp_path / "w.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "videos").symlink_to(folder / "videos")
    broken, whole = read_captions(tmp_path)
    assert found in str(broken.trouble)
    assert whole.trouble is None


def test_answers_that_are_no_list_are_no_caption(tmp_path: Path) -> None:
    (tmp_path / "w.jsonl").write_text('{"id": "a", "video": "v.mp4", "answers": 7}\n')
    assert list(read_captions(tmp_path)) == []


def test_shares_stand_in_report_and_table(oracle: LlavaVideo, copy: Callable[[str], Path]) -> None:
    """The oracle's "0" and "39" are no captions: nothing is named, all that is stated is false."""
    examples = list(read_captions(copy("world-captions")))
    report = evaluate(
        oracle, "world-captions", examples, settings=EvalSettings(noise=True), num_frames=4
    )
    shares = {one.name: one for one in report.overall.measures}
    named, invented = shares["objects named"], shares["invented"]
    assert (named.share.value, named.share.num_examples, named.share.num_clusters) == (0.0, 2, 1)
    assert (invented.share.value, invented.share.num_examples) == (1.0, 2)
    assert "events named" not in shares  # the clip has none
    assert invented.noise is not None
    assert invented.noise.num_examples == 2
    lines = list(report_lines(report))
    (line,) = [line for line in lines if line.startswith("world-captions, objects named")]
    assert line.split()[3:6] == ["2", "1", "0.0"]
    assert any(line.startswith("  type: short, invented") for line in lines)


def test_a_caption_that_failed_has_missed_everything(
    oracle: LlavaVideo, copy: Callable[[str], Path]
) -> None:
    place = copy("world-captions")
    (place / "videos/000000.mp4").unlink()
    report = evaluate(oracle, "world-captions", list(read_captions(place)), num_frames=4)
    assert report.overall.num_failed == 2
    (named,) = report.overall.measures
    assert (named.name, named.share.value, named.share.num_examples) == ("objects named", 0.0, 2)


class Knowing:
    """An engine that says what it is told, whatever it is shown."""

    def __init__(self, model: LlavaVideo, answer_of: dict[str, str]) -> None:
        self._decode, self._answer_of = model.spec.tokenizer.decode, answer_of

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        for request in requests:
            prompt = self._decode(request.text_ids)
            asked = max((text for text in self._answer_of if text in prompt), key=len)
            answer = Answer(
                text=self._answer_of[asked],
                token_ids=(),
                finish_reason="stop",
                text_tokens=request.text_tokens,
                visual_tokens=request.visual_tokens,
                new_tokens=1,
            )
            yield Finished(request.request_id, answer)


def test_who_knows_the_truth_is_right_everywhere(folder: Path, tiny_model: LlavaVideo) -> None:
    """Every kind of answer is judged right as the world writes it, every caption whole and true."""
    answer_of: dict[str, dict[str, str]] = defaultdict(dict)
    for record in read_records(folder / "train.jsonl"):
        for turn in record["answers"]:
            answer_of[record["video"]][turn["text"]] = turn["answer"]
    scores: list[GroupScore] = []
    for read in (read_world, read_captions):
        for video, examples in itertools.groupby(read(folder), lambda example: example.cluster):
            model = LlavaVideo(tiny_model.spec, Knowing(tiny_model, answer_of[video]))
            report = evaluate(model, "world", list(examples), num_frames=4)
            scores += report.scores
    assert {score.accuracy.value for score in scores if score.accuracy} == {1.0}
    assert {score.exact for score in scores} == {1.0, None}
    shares = {(m.name, m.share.value) for score in scores for m in score.measures}
    assert shares == {
        ("objects named", 1.0),
        ("events named", 1.0),
        ("invented", 0.0),
        ("details right", 1.0),
    }
    assert {"when", "count", "yes/no", "colour"} <= {score.name for score in scores}
