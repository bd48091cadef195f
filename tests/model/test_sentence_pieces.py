"""tokenizer.model as a tokenizer.json: the ids of SentencePiece itself, as the slow tokenizer asks.

`slow_ids` says by sentencepiece what transformers' slow LlamaTokenizer does; nothing of the package
is in it.
"""

import functools
import io
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as BaseTokenizer

from llava_video.errors import CheckpointError
from llava_video.model.sentence_pieces import BLANK, Converted, convert_pieces, read_pieces
from llava_video.model.tiny import byte_tokenizer
from llava_video.model.tokenizer import Tokenizer

WORDS = ["the cat", "sat on", "aaa", "abab", "USER:", "Qüestion", "視頻", "1234", "  "]
ADDED = {"<im_end>": "special", "<plain>": "plain"}
# A protobuf message with the same field again is merged: `normalizer_spec { add_dummy_prefix: 0 }`.
WITHOUT_BLANK = b"\x1a\x02\x18\x00"

texts = st.lists(
    st.sampled_from(
        [
            *WORDS,
            *ADDED,
            " ",
            "\n",
            BLANK,
            "<s>",
            "</s>",
            "<unk>",
            "<|x|>",
            "é",
            "😀",
            "a",
            "<0x41>",
        ]
    ),
    max_size=10,
).map("".join)


@functools.cache
def trained(*, byte_fallback: bool, adds_blank: bool) -> bytes:
    """Train a model of a few hundred pieces, blanks in runs and within pieces among them."""
    made = io.BytesIO()
    lines = ["".join(WORDS[(a * k + b) % len(WORDS)] + " " * (k % 3) for k in range(9))
             for a in range(1, 9) for b in range(9)]  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=made,
        vocab_size=400 if byte_fallback else 120,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=byte_fallback,
        add_dummy_prefix=adds_blank,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["<|x|>"],
        minloglevel=2,
    )
    return made.getvalue()


def slow_ids(model: bytes, text: str, added: Mapping[str, int], *, legacy: bool) -> list[int]:
    """Say what `LlamaTokenizer.encode(text, add_special_tokens=False)` of transformers 4.37 does.

    Special and added tokens are found first. Without `legacy` a blank goes in front of the whole
    text, and away again where a special token follows it at once.
    """
    if not text:
        return []
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    if not legacy:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model + WITHOUT_BLANK)
        text = BLANK + text.replace(BLANK, " ")
    found: list[str] = []
    for part in re.split("(" + "|".join(map(re.escape, added)) + ")", text):
        if part in added:
            found.append(part)
        elif part:
            found += pieces.encode(part, out_type=str)
    special = {"<s>", "</s>", "<unk>", "<im_end>"}
    if not legacy and len(found) > 1 and found[0] == BLANK and found[1] in special:
        found = found[1:]
    return [added.get(piece, pieces.piece_to_id(piece)) for piece in found]


def converted(model: bytes, folder: Path, **more: object) -> Converted:
    (folder / "tokenizer.model").write_bytes(model)
    num_pieces = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    ids = {token: num_pieces + idx for idx, token in enumerate(ADDED)}
    (folder / "added_tokens.json").write_text(json.dumps(ids))
    return convert_pieces(folder, {"additional_special_tokens": ["<im_end>"], **more})


def ids_of(made: Converted, text: str) -> list[int]:
    base = BaseTokenizer.from_str(json.dumps(made.values))
    lead = BLANK if text.startswith(made.doubled_before) else ""
    return list(base.encode(lead + text, add_special_tokens=False).ids)


@pytest.mark.parametrize("byte_fallback", [True, False])
@pytest.mark.parametrize("adds_blank", [True, False])
@pytest.mark.parametrize("legacy", [True, False])
def test_the_ids_are_those_of_sentencepiece(
    tmp_path: Path, byte_fallback: bool, adds_blank: bool, legacy: bool
):
    model = trained(byte_fallback=byte_fallback, adds_blank=adds_blank)
    made = converted(model, tmp_path, legacy=legacy)
    added = {token["content"]: token["id"] for token in made.values["added_tokens"]}
    assert {"<s>", "</s>", "<unk>", "<|x|>", *ADDED} == set(added)

    @given(texts)
    @settings(max_examples=60)
    def check(text: str) -> None:
        assert ids_of(made, text) == slow_ids(model, text, added, legacy=legacy)

    check()


def test_a_text_that_begins_with_a_blank_has_two(tmp_path: Path):
    model = trained(byte_fallback=True, adds_blank=True)
    made = converted(model, tmp_path, legacy=False)
    one_blank = Converted(made.values, ())  # as the fast tokenizer has it
    ids = slow_ids(model, " the cat", {"</s>": 2}, legacy=False)
    assert ids_of(made, " the cat") == ids
    assert ids_of(one_blank, " the cat") != ids


def test_legacy_puts_a_blank_behind_special_tokens_too(tmp_path: Path):
    model = trained(byte_fallback=True, adds_blank=True)
    new = ids_of(converted(model, tmp_path, legacy=False), "a</s>a")
    old = ids_of(converted(model, tmp_path, legacy=True), "a</s>a")
    assert (new.index(2), old.index(2)) == (1, 1)
    assert new[2] != old[2] == old[0] == new[0]
    # What is not said is legacy, as the original code takes it.
    assert ids_of(converted(model, tmp_path), "a</s>a") == old


def test_what_goes_in_front(tmp_path: Path):
    model = trained(byte_fallback=True, adds_blank=True)
    base = BaseTokenizer.from_str(json.dumps(converted(model, tmp_path).values))
    assert base.encode("</s>").ids == [1, 2]
    assert "post_processor" not in converted(model, tmp_path, add_bos_token=False).values
    assert "post_processor" not in converted(model, tmp_path, bos_token=None).values


def piece(text: str, score: float = 0.0, kind: int = 1) -> bytes:
    """Write one piece by hand: 1 text, 2 score as float32, 3 kind."""
    raw = text.encode()
    inside = (
        bytes([0x0A, len(raw)]) + raw + b"\x15" + struct.pack("<f", score) + bytes([0x18, kind])
    )
    return bytes([0x0A, len(inside)]) + inside


SMALL = [piece("<unk>", kind=2), piece("<s>", kind=3), piece("</s>", kind=3),
         piece("ab", -1.0), piece("a", -2.0), piece("b", -3.0)]  # fmt: skip
BPE = b"\x12\x05\x18\x02\x98\x02\x01"  # trainer_spec { model_type: BPE, byte_fallback: true }
KEEPS = b"\x1a\x02\x20\x00"  # normalizer_spec { remove_extra_whitespaces: false }


def test_the_message_is_read_field_by_field(tmp_path: Path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"".join(SMALL) + BPE + KEEPS)
    pieces = read_pieces(path)
    assert pieces.texts == ("<unk>", "<s>", "</s>", "ab", "a", "b")
    assert pieces.scores == (0.0, 0.0, 0.0, -1.0, -2.0, -3.0)
    assert pieces.kinds == (2, 3, 3, 1, 1, 1)
    assert pieces.role_ids == {"unk": 0, "bos": 1, "eos": 2}
    assert (pieces.has_byte_fallback, pieces.adds_blank) == (True, True)
    path.write_bytes(b"".join(SMALL) + BPE + KEEPS + WITHOUT_BLANK)
    assert not read_pieces(path).adds_blank
    values = convert_pieces(tmp_path, {}).values
    assert values["model"]["merges"] == [["a", "b"]]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"".join(SMALL) + KEEPS, "another kind than BPE"),  # the default is unigram
        (b"".join(SMALL) + BPE, "normalised"),  # the default removes blanks
        (b"".join(SMALL) + BPE + KEEPS + b"\x1a\x03\x12\x01x", "normalised"),
        (b"".join([*SMALL, SMALL[0]]) + BPE + KEEPS, "no SentencePiece model"),
        (b"".join(SMALL)[:-2] + BPE, "not read"),
        (b"IQ== 0\nIg== 1\n", "not read"),  # tiktoken's, as Llama 3's tokenizer.model
        (b"", "no SentencePiece model"),
        (b"\xff" * 40, "not read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, message: bytes, said: str):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(message)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_pieces(path)
    assert "tokenizer.json" in caught.value.hint
    # And what the hint says works.
    byte_tokenizer().save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer(tmp_path).encode("ab") == [*b"ab"]


def small_folder(folder: Path, **files: object) -> Path:
    (folder / "tokenizer.model").write_bytes(b"".join(SMALL) + BPE + KEEPS)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_added_tokens_keep_the_ids_of_their_files(tmp_path: Path):
    small_folder(
        tmp_path,
        added_tokens={"<image>": 6, "<im_start>": 8},
        special_tokens_map={"pad_token": "[PAD]", "bos_token": {"content": "<s>"}},
    )
    decoder = {"7": {"content": "<im_end>", "rstrip": True, "special": True}}
    asked = {"legacy": False, "added_tokens_decoder": decoder}
    made = convert_pieces(tmp_path, asked, without={"<image>"})
    told = {one["content"]: (one["id"], one["special"]) for one in made.values["added_tokens"]}
    assert told == {
        "<unk>": (0, True),
        "<s>": (1, True),
        "</s>": (2, True),
        "<im_end>": (7, True),
        "<im_start>": (8, False),
        "[PAD]": (9, True),  # known by name only: behind the last one
    }
    base = BaseTokenizer.from_str(json.dumps(made.values))
    ids = [base.token_to_id(token) for token in ("<im_end>", "<im_start>", "[PAD]", "<image>")]
    assert ids == [7, 8, 9, None]
    assert base.encode("ab<im_end>  ab<im_start>", add_special_tokens=False).ids[-3:] == [7, 3, 8]


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": {"<image>": "six"}},
        {"special_tokens_map": {"additional_special_tokens": 7}},
    ],
)
def test_added_tokens_of_another_form_are_refused(tmp_path: Path, files: dict[str, object]):
    with pytest.raises(CheckpointError, match="added tokens") as caught:
        convert_pieces(small_folder(tmp_path, **files), {})
    assert "again" in caught.value.hint


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="cannot read"):
        read_pieces(tmp_path)  # a folder
