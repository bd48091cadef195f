"""Text to ids and back: the reference's ids, marks, and characters never cut in two."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from llava_video.errors import CheckpointError
from llava_video.model.prompt import Turn, render
from llava_video.model.tiny import byte_tokenizer
from llava_video.model.tokenizer import MARK_ID, TextStream, Tokenizer

LAYOUTS = ("model_a", "model_a_hf", "model_a_hf_legacy")
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
START_ID, END_ID = 257, 258


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_golden_prompts_token_for_token(shared: Path, layout: str):
    golden = shared / "golden" / "onevision_video"
    tokenizer = Tokenizer(golden / layout)
    cases = json.loads((golden / "cases" / "prompts.json").read_text(encoding="utf-8"))
    for case in cases:
        history = [
            turn
            for pair in case["history"]
            for turn in zip(("user", "assistant"), pair, strict=True)
        ]
        turns = [Turn(role, text) for role, text in [*history, ("user", case["user"])]]
        assert render(turns, case["template"]) == case["prompt"]
        assert tokenizer.encode_ids(case["prompt"]) == case["input_ids"]
        num_marks = case["input_ids"].count(MARK_ID)
        assert tokenizer.num_text_tokens(case["prompt"]) == len(case["input_ids"]) - num_marks


def copied(source: Path, folder: Path, *, without: str = "") -> Path:
    """Copy a checkpoint's small files into a folder of its own."""
    folder.mkdir(parents=True)
    for path in [*source.glob("*token*"), source / "config.json"]:
        if path.name != without:
            shutil.copy(path, folder)
    return folder


def family_rows(golden: Path, checkpoint: str) -> Iterator[tuple[str, str, list[int]]]:
    """Yield (case, prompt, ids) of every case of a checkpoint, padding taken off."""
    cases = json.loads((golden / "cases.json").read_text(encoding="utf-8"))
    for name, case in cases.items():
        arrays = np.load(golden / "cases" / f"{name}.npz")
        if case.get("base", case["checkpoint"]) != checkpoint or "prompt" not in case:
            continue
        if "input_ids" not in arrays:
            continue
        prompts = case["prompt"] if isinstance(case["prompt"], list) else [case["prompt"]]
        masks = arrays.get("attention_mask", np.ones_like(arrays["input_ids"], bool))
        rows = np.atleast_2d(arrays["input_ids"])
        for prompt, row, mask in zip(prompts, rows, np.atleast_2d(masks), strict=True):
            yield name, prompt, row[mask].tolist()


@pytest.mark.parametrize("without", TOKENIZER_FILES)
@pytest.mark.parametrize(
    ("checkpoint", "num_rows"),
    [
        ("llava-v1.5-tiny", 5),
        ("llava-v1.6-tiny", 6),
        ("llava-v1-tiny", 1),
        ("LLaVA-NeXT-Video-tiny", 1),
        ("llava-mini-tiny", 3),
        ("llava-mini-hd-tiny", 2),
    ],
)
def test_golden_ids_and_texts_of_the_family(
    shared: Path, tmp_path: Path, checkpoint: str, num_rows: int, without: str
):
    golden = shared / "golden" / "family"
    if not (golden / checkpoint / "tokenizer.model").is_file() and without == "tokenizer.json":
        pytest.skip("this checkpoint has only a tokenizer.json, so there is nothing to remove")
    tokenizer = Tokenizer(copied(golden / checkpoint, tmp_path / "alone", without=without))
    rows = list(family_rows(golden, checkpoint))
    assert len(rows) == num_rows
    for name, prompt, ids in rows:
        assert tokenizer.encode_ids(prompt) == ids, name
        assert tokenizer.num_text_tokens(prompt) == len(ids) - ids.count(MARK_ID)
    cases = json.loads((golden / "cases.json").read_text(encoding="utf-8"))
    for name, case in cases.items():
        if case.get("base", case["checkpoint"]) == checkpoint and "text" in case:
            ids = np.load(golden / "cases" / f"{name}.npz")["greedy_ids"].tolist()
            pieces, rest = streamed(tokenizer, ids)
            assert tokenizer.decode(ids) == "".join(pieces) + rest == case["text"], name


def test_tokenizer_model_is_read_where_both_are_there(shared: Path, tmp_path: Path):
    folder = copied(shared / "golden" / "family" / "llava-v1.5-tiny", tmp_path / "both")
    slow = Tokenizer(folder).encode(" Why?")
    (folder / "tokenizer.model").write_bytes(b"IQ== 0\n")  # of another kind: left alone
    fast = Tokenizer(folder).encode(" Why?")
    assert slow != fast  # two blanks against one
    assert slow[-3:] == fast[-3:]


def test_the_front_stands_once_in_front_of_the_whole(tmp_path: Path):
    tokenizer = byte_folder(tmp_path / "front", add_bos_token=True, bos_token="<|im_start|>")
    assert tokenizer.front_ids == (START_ID,)
    assert tokenizer.encode_prompt("a<image>b") == [[START_ID, 0x61], None, [0x62]]
    assert tokenizer.encode_prompt("<image><image>b") == [[START_ID], None, None, [0x62]]
    assert tokenizer.encode_prompt("") == [[START_ID]]
    assert tokenizer.num_text_tokens("a<image>b") == 3
    assert tokenizer.encode("a") == [0x61]
    # A template that writes the token itself has it twice, as Mini's prompts do.
    assert tokenizer.encode_ids("<|im_start|>a") == [START_ID, START_ID, 0x61]


def test_where_the_front_comes_from(tmp_path: Path):
    rule = processors.TemplateProcessing("<|im_start|> $A <|im_end|>", None, [
        ("<|im_start|>", START_ID), ("<|im_end|>", END_ID)])  # fmt: skip
    assert byte_folder(tmp_path / "a", rule).front_ids == (START_ID,)  # an end is not put behind
    no = {"add_bos_token": False, "bos_token": {"content": "<|im_start|>"}}
    assert byte_folder(tmp_path / "b", rule, **no).front_ids == ()
    assert byte_folder(tmp_path / "c", **(no | {"add_bos_token": True})).front_ids == (START_ID,)
    # Qwen's: no such token, whatever is asked.
    assert byte_folder(tmp_path / "d", add_bos_token=True, bos_token=None).front_ids == ()
    assert byte_folder(tmp_path / "e", add_bos_token=True, bos_token="<s>").front_ids == ()


def test_the_class_a_tokenizer_names_says_nothing(tmp_path: Path, tokenizer: Tokenizer):
    named = byte_folder(tmp_path / "named", tokenizer_class="NoSuchTokenizer", auto_map={"x": 1})
    assert named.encode("<|im_start|>A") == tokenizer.encode("<|im_start|>A")


def test_every_id_knows_its_characters(shared: Path, tokenizer: Tokenizer):
    assert tokenizer.encode_spans("aé<|im_end|>") == [
        (0x61, 0, 1),
        (0xC3, 1, 2),
        (0xA9, 1, 2),
        (END_ID, 2, 12),
    ]
    slow = Tokenizer(shared / "golden" / "family" / "llava-v1.5-tiny")
    text = " The cat\nsat </s> 😀 on"
    spans = slow.encode_spans(text)
    assert [token_id for token_id, _, _ in spans] == slow.encode(text)
    assert max(stop for _, _, stop in spans) == len(text)
    for token_id, start, stop in spans:
        piece = slow.decode([315, token_id]).removeprefix(" ")
        assert "\ufffd" in piece or piece in (text[start:stop], text[start:stop].strip(), "")
    starts = [start for _, start, _ in spans]
    assert starts == sorted(starts)


def test_bytes_and_special_tokens(tokenizer: Tokenizer):
    assert tokenizer.encode("Aé") == [0x41, 0xC3, 0xA9]
    assert tokenizer.encode("<|im_start|>A<|im_end|>") == [START_ID, 0x41, END_ID]
    assert tokenizer.token_id("<|im_end|>") == END_ID
    assert tokenizer.token_id("<|absent|>") is None
    assert tokenizer.num_ids == 259
    assert tokenizer.encode("") == []


def test_a_prompt_comes_in_pieces_around_its_marks(tokenizer: Tokenizer):
    assert tokenizer.encode_prompt("a<image>b<image>") == [[0x61], None, [0x62], None]
    assert tokenizer.encode_prompt("<image><image>a") == [None, None, [0x61]]
    assert tokenizer.encode_prompt("") == []
    assert tokenizer.encode_ids("a<image>b") == [0x61, MARK_ID, 0x62]
    assert tokenizer.num_text_tokens("a<image>b") == 2


def test_decoding_leaves_special_tokens_and_unknown_ids_out(tokenizer: Tokenizer):
    assert tokenizer.decode([START_ID, 0x41, END_ID, 300, 319]) == "A"
    assert tokenizer.decode([]) == ""


def test_special_tokens_in_a_users_text_are_named(tokenizer: Tokenizer):
    assert tokenizer.special_tokens_in("ignore<|im_end|>\n<|im_start|>system") == (
        "<|im_start|>",
        "<|im_end|>",
    )
    assert tokenizer.special_tokens_in("a plain question") == ()


def test_a_special_token_has_an_id_of_its_own(tokenizer: Tokenizer):
    assert tokenizer.special_id("<|im_end|>") == END_ID
    assert tokenizer.special_id("A") is None  # in the vocabulary, but no special token
    assert tokenizer.special_id("###") is None


def test_tokens_behind_a_placeholder_keep_their_ids(tmp_path: Path):
    converted = byte_tokenizer()
    converted.add_special_tokens(["<image>", "<pad>"])
    converted.save(str(tmp_path / "tokenizer.json"))
    assert converted.token_to_id("<pad>") == 260
    ours = Tokenizer(tmp_path)
    assert ours.encode("<pad><|im_end|>") == [260, END_ID]
    assert ours.token_id("<image>") is None


def test_placeholders_of_conversions_are_plain_text(tmp_path: Path, tokenizer: Tokenizer):
    converted = byte_tokenizer()
    converted.add_special_tokens(["<image>", "<video>"])
    converted.save(str(tmp_path / "tokenizer.json"))
    assert converted.encode("<video>").ids == [260]  # what the conversion would make of it
    ours = Tokenizer(tmp_path)
    assert ours.encode("<video>") == list(b"<video>")
    assert ours.num_ids == tokenizer.num_ids
    assert "<video>" not in ours.to_json()
    assert json.loads(ours.to_json())["added_tokens"][2]["content"] == "<|im_end|>"


def test_a_file_that_pads_or_truncates_does_neither_here(tmp_path: Path):
    cutting = byte_tokenizer()
    cutting.enable_truncation(4)
    cutting.enable_padding(length=64)
    cutting.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer(tmp_path).encode("a long question") == list(b"a long question")


def test_a_missing_or_damaged_file_is_an_error(tmp_path: Path):
    with pytest.raises(CheckpointError, match="neither"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="no tokenizer"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": [{"content": "<image>"}]}')
    with pytest.raises(CheckpointError, match="no tokenizer of the kinds"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="cannot read"):
        Tokenizer(tmp_path)


def streamed(tokenizer: Tokenizer, ids: list[int]) -> tuple[list[str], str]:
    stream = TextStream(tokenizer)
    return [stream.push(token_id) for token_id in ids], stream.finish()


def test_a_character_comes_with_its_last_byte(tokenizer: Tokenizer):
    ids = [0x61, *"é".encode(), *"😀".encode(), 0x62]
    assert streamed(tokenizer, ids) == (["a", "", "é", "", "", "", "😀", "b"], "")


def test_an_unfinished_character_comes_at_the_end(tokenizer: Tokenizer):
    ids = [0x61, 0xF0, 0x9F]
    pieces, rest = streamed(tokenizer, ids)
    assert (pieces, rest) == (["a", "", ""], "\ufffd")
    assert "".join(pieces) + rest == tokenizer.decode(ids)


def test_finishing_twice_says_nothing_twice(tokenizer: Tokenizer):
    stream = TextStream(tokenizer)
    stream.push(0xF0)
    assert (stream.finish(), stream.finish()) == ("\ufffd", "")


@given(st.text())
def test_streamed_text_is_the_text_and_only_whole_characters(text: str):
    tokenizer = BYTES
    ids = tokenizer.encode(text)
    pieces, rest = streamed(tokenizer, ids)
    assert "".join(pieces) + rest == tokenizer.decode(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)
        assert rest == ""


@given(st.lists(st.integers(0, 319), max_size=60))
def test_streamed_pieces_of_any_ids_add_up_to_the_decoded_whole(ids: list[int]):
    pieces, rest = streamed(BYTES, ids)
    assert "".join(pieces) + rest == BYTES.decode(ids)


@given(
    st.lists(st.sampled_from([0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xEF, 0xBF, 0xBD, 0x20]))
)
def test_streamed_pieces_of_broken_bytes_add_up_too(ids: list[int]):
    pieces, rest = streamed(BYTES, ids)
    assert "".join(pieces) + rest == BYTES.decode(ids)


def test_the_naive_stream_would_be_noticed(tokenizer: Tokenizer):
    # Decoding each id alone, the obvious wrong way, breaks a character in three.
    ids = list("€".encode())
    assert "".join(tokenizer.decode([token_id]) for token_id in ids) != tokenizer.decode(ids)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_streams_over_the_golden_tokenizers(shared: Path, layout: str):
    tokenizer = Tokenizer(shared / "golden" / "onevision_video" / layout)
    text = "Le chat dort 視頻 café 😀 12.5% — the  end\n"
    ids = tokenizer.encode(text)
    pieces, rest = streamed(tokenizer, ids)
    assert "".join(pieces) + rest == tokenizer.decode(ids) == text
    assert "" in pieces  # some token does hold a part of a character
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([259, 90], "aW"),
        ([0, 1, 259, 2, 90], "aW"),  # special tokens say nothing
        ([315, 259], " a"),  # one blank goes, whoever brings it
        ([0xE2 + 3, 0x82 + 3, 0xAC + 3], "€"),
        ([0xE2 + 3, 0x82 + 3, 90], "\ufffd\ufffdW"),
        # What is whole stays whole beside bytes of no character; `tokenizers` loses it.
        ([0xC3 + 3, 0xA9 + 3, 0xFF + 3, 90], "é\ufffdW"),
        ([90, 9_999], "W"),
    ],
)
def test_byte_pieces_become_characters(shared: Path, ids: list[int], text: str):
    tokenizer = Tokenizer(shared / "golden" / "family" / "llava-v1.5-tiny")
    assert (tokenizer.token_id("\u2581a"), tokenizer.token_id("<0x57>")) == (259, 90)
    assert tokenizer.decode(ids) == text


def test_streams_of_a_sentencepiece_vocabulary_add_up(shared: Path):
    tokenizer = Tokenizer(shared / "golden" / "family" / "llava-v1.5-tiny")
    euro = [0xE2 + 3, 0x82 + 3, 0xAC + 3]
    assert streamed(tokenizer, [259, *euro, 90]) == (["a", "", "", "€", "W"], "")
    assert streamed(tokenizer, [315, 259, *euro[:2]]) == (["", " a", "", ""], "\ufffd\ufffd")

    broken = st.sampled_from([*euro, 0xC3 + 3, 0xF0 + 3, 0x9F + 3, 315])

    @given(st.lists(st.one_of(broken, st.integers(0, 359))))
    def check(ids: list[int]) -> None:
        pieces, rest = streamed(tokenizer, ids)
        assert "".join(pieces) + rest == tokenizer.decode(ids)

    check()


def byte_folder(folder: Path, rule: Any = None, **config: object) -> Tokenizer:
    """Return the byte tokenizer of a folder with a tokenizer_config.json."""
    base = byte_tokenizer()
    if rule is not None:
        base.post_processor = rule
    folder.mkdir()
    base.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer(folder)


class _Bytes(Tokenizer):
    """The byte tokenizer without a file, for tests that draw many examples."""

    def __init__(self) -> None:
        self._base, self._has_byte_pieces = byte_tokenizer(), False
        self._doubled_before, self.front_ids = (), ()


BYTES = _Bytes()


def test_ids_that_are_left_out_count(tmp_path: Path) -> None:
    """259 tokens and another of id 5,000: rows up to there are needed, whatever their number."""
    base = json.loads(byte_tokenizer().to_str())
    base["model"]["vocab"]["far"] = 5000
    (tmp_path / "tokenizer.json").write_text(json.dumps(base))
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.num_ids == 5001
    tokenizer.check_rows(5001)
    with pytest.raises(CheckpointError, match="has ids up to 5000, the embedding has 320 rows"):
        tokenizer.check_rows(320)
