"""The records of public checkpoints: complete, once each, found by id and by folder."""

import pytest

from llava_video.model.known_files import find_record, known_records
from llava_video.model.members import MEMBERS

NAMES = {
    "LLaVA": "liuhaotian/LLaVA-7b-delta-v0",
    "LLaVA-1.5": "liuhaotian/llava-v1.5-7b",
    "LLaVA-NeXT": "liuhaotian/llava-v1.6-34b",
    "LLaVA-NeXT-Video": "lmms-lab/LLaVA-NeXT-Video-7B-DPO",
    "LLaVA-Mini": "ICTNLP/llava-mini-llama-3.1-8b",
    "LLaVA-Critic": "lmms-lab/llava-critic-72b",
    "LLaVA-OneVision": "lmms-lab/llava-onevision-qwen2-0.5b-ov",
    "LLaVA-Video": "lmms-lab/LLaVA-Video-7B-Qwen2",
}


def test_every_checkpoint_is_there_once():
    names = [record.name.lower() for record in known_records()]
    lasts = [name.rpartition("/")[2] for name in names]
    assert len(lasts) == len(set(lasts))  # found by the last part alone
    for family, name in NAMES.items():
        assert find_record(name).family == family
    assert {record.family for record in known_records()} == set(MEMBERS) == set(NAMES)


def test_the_public_checkpoints_are_there():
    names = {record.name for record in known_records()}
    for size in ("0.5b", "7b", "72b"):
        for stage in ("si", "ov"):
            assert f"lmms-lab/llava-onevision-qwen2-{size}-{stage}" in names
            assert f"llava-hf/llava-onevision-qwen2-{size}-{stage}-hf" in names
    for size in ("7B", "7B-DPO", "7B-32K", "34B", "34B-DPO"):
        assert f"lmms-lab/LLaVA-NeXT-Video-{size}" in names
        assert f"llava-hf/LLaVA-NeXT-Video-{size}-hf" in names
    for size in ("vicuna-7b", "vicuna-13b", "mistral-7b", "34b"):
        assert f"liuhaotian/llava-v1.6-{size}" in names
        assert f"llava-hf/llava-v1.6-{size}-hf" in names
    for size in ("7b", "13b"):
        assert {f"liuhaotian/llava-v1.5-{size}", f"liuhaotian/llava-v1.5-{size}-lora"} <= names
        assert f"llava-hf/llava-1.5-{size}-hf" in names
    assert {"lmms-lab/LLaVA-Video-7B-Qwen2", "lmms-lab/LLaVA-Video-72B-Qwen2"} <= names


@pytest.mark.parametrize(
    "name",
    [
        "lmms-lab/LLaVA-Video-7B-Qwen2",
        "/data/checkpoints/LLaVA-Video-7B-Qwen2",
        "/data/checkpoints/llava-video-7b-qwen2/",
        "C:\\models\\LLaVA-Video-7B-Qwen2",
    ],
)
def test_found_by_id_and_by_folder(name: str):
    assert find_record(name).name == "lmms-lab/LLaVA-Video-7B-Qwen2"


@pytest.mark.parametrize("name", ["", "/", "LLaVA-Video", "someone/another-model"])
def test_unknown_names_find_nothing(name: str):
    assert find_record(name) is None


def test_own_facts_come_before_shared_ones_and_before_the_decoders():
    plain, padded = find_record("llava-v1.5-7b"), find_record("llava-1.5-7b-hf")
    assert (plain.layout, plain.values["vocab_size"]) == ("original", 32_000)
    assert (padded.layout, padded.values["vocab_size"]) == ("hf", 32_064)
    assert plain.values["hidden_size"] == padded.values["hidden_size"] == 4096


def test_what_is_no_whole_model_names_its_base():
    for record in known_records():
        is_part = any(word in record.name for word in ("delta", "-lora", "pretrain"))
        merged = "lora-merge" in record.name
        assert bool(record.base) == (is_part and not merged), record.name


def test_licences_are_stated_or_referred_to():
    stated = {"apache-2.0", "apache-2.0, of the delta", "llama2"}
    assert {record.licence for record in known_records()} == {"see the model card", *stated}
