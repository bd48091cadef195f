"""The report of a data set: all of it looked into, what is broken listed and counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from llava_video.model.spec import ModelSpec
from llava_video.train.check import Broken, DataReport, check_data
from llava_video.train.examples import ExampleMaker
from llava_video.train.mixture import read_mixture
from llava_video.train.settings import DataSettings, SourceSettings


def test_the_report(tiny_spec: ModelSpec, media: Path, good_entries: list[dict[str, Any]]):
    path = media / "mixed.json"
    lost = {**good_entries[2], "image": "none.png"}
    mute = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": ""}]}
    path.write_text(json.dumps([*good_entries[:3], lost, mute, good_entries[4]]))
    records = read_mixture([SourceSettings(path=str(path), weight=2)], 0)
    maker = ExampleMaker(tiny_spec, DataSettings(max_frames=4))
    seen: list[tuple[int, int]] = []
    report = check_data(maker, records, lambda *done: seen.append(done))
    assert seen == [(done, 6) for done in range(1, 7)]
    assert report.num_examples == 12
    assert report.num_by_modality == {"text": 6, "image": 4, "video": 2}
    assert report.num_broken == 4
    assert [one.kind for one in report.broken] == ["missing file", "empty answer"]
    good = [maker.example(records[idx]) for idx in (0, 1, 2, 5)]
    lengths = sorted(one.num_rows for one in good)
    assert report.total_tokens == 2 * sum(lengths)
    assert report.tokens == (lengths[0], round((lengths[1] + lengths[2]) / 2), lengths[3])
    learned = sum(label != -100 for one in good for label in one.labels)
    assert report.learned_share == learned / sum(lengths)
    visual = sum(plan.num_tokens for one in good for plan in one.plans)
    assert report.visual_share == visual / sum(lengths)
    text = "\n".join(report.lines())
    assert "12 examples: 6 text, 4 image, 2 video." in text
    assert "2 broken: 1 missing file, 1 empty answer." in text
    assert "none.png" in text


@pytest.mark.parametrize("names", [("good", "bad"), ("bad", "good")])
def test_sources_of_one_file_are_looked_at_in_each_ones_folder(
    tiny_spec: ModelSpec, tmp_path: Path, media: Path, names: tuple[str, str]
):
    path, one = tmp_path / "one.json", {"from": "human", "value": "<image>\nWhat is this?"}
    said = [one, {"from": "gpt", "value": "Noise."}]
    path.write_text(json.dumps([{"image": "a.png", "conversations": said}]))
    folders = {"good": media, "bad": tmp_path}
    sources = [SourceSettings(path=str(path), media=str(folders[name])) for name in names]
    twice = SourceSettings(path=str(path), media=str(tmp_path), weight=2)
    report = check_data(ExampleMaker(tiny_spec, DataSettings()), read_mixture([*sources, twice], 0))
    assert (report.num_examples, report.num_broken) == (4, 3)
    assert len(report.broken) == 1
    assert str(tmp_path / "a.png") in report.broken[0].message
    assert report.total_tokens > 0


def test_of_many_broken_ones_the_first_are_named_and_the_rest_counted():
    def lines(num_broken: int) -> list[str]:
        broken = tuple(Broken(f"{idx}", "marks", f"number {idx}.") for idx in range(num_broken))
        return DataReport(
            num_examples=num_broken,
            num_by_modality={"text": num_broken},
            num_broken=num_broken,
            broken=broken,
            tokens=(0, 0, 0),
            total_tokens=0,
            visual_share=0.0,
            learned_share=0.0,
        ).lines()

    assert lines(1021)[2] == "1,021 broken: 1021 marks."
    assert lines(1021)[3:23] == lines(20)[3:] == [f"  number {idx}." for idx in range(20)]
    assert lines(1021)[23:] == ["  and 1,001 more: --json names all."]


def test_nothing_good_is_a_report_too(tiny_spec: ModelSpec, media: Path):
    path = media / "bad.json"
    path.write_text(json.dumps([{"id": 1}]))
    records = read_mixture([SourceSettings(path=str(path))], 0)
    report = check_data(ExampleMaker(tiny_spec, DataSettings()), records)
    assert (report.num_broken, report.tokens, report.learned_share) == (1, (0, 0, 0), 0.0)
