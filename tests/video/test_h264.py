import pytest

from llava_video.video.h264 import KeyKind, is_disposable, key_kind

# A unit's first byte: three bits of importance, five of kind. Then Exp-Golomb numbers:
# first_mb_in_slice 0 is "1"; slice_type 7 is "0001000", 2 is "011", 5 is "00110", 0 is "1".
_UNITS = {
    "sei": b"\x06\x05\x11",
    "idr": b"\x65\x88\x84",  # 1 0001000 ...: an I slice of an IDR picture
    "i": b"\x41\x88\x84",  # the same slice of any other picture
    "i2": b"\x41\xb0\x00",  # 1 011 ....: slice_type 2
    "p": b"\x41\x9a\x24",  # 1 00110 ..: slice_type 5
    "b": b"\x01\x9e\x24",  # nal_ref_idc 0
    "idle": b"\x09\xf0",  # a delimiter
    "sps": b"\x67\x64\x00",
    "p0": b"\x41\xe0\x00",  # 1 1 ......: slice_type 0
    "i_later": b"\x41\x02\x10\x80\x80",  # 0000001000010 0001000 ...: macroblock 65, then 7
}
_AVCC = bytes([1, 100, 0, 30, 0xFF])  # lengths of (0xFF & 3) + 1 = 4 bytes


def _by_length(*names: str) -> bytes:
    return b"".join(len(_UNITS[n]).to_bytes(4, "big") + _UNITS[n] for n in names)


def _by_start_code(*names: str) -> bytes:
    return b"".join(b"\0\0\0\1" + _UNITS[n] for n in names)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("sei", "idr"), KeyKind.CLEAN),
        (("idr", "idr"), KeyKind.CLEAN),
        (("sei", "i"), KeyKind.OPEN),
        (("i2",), KeyKind.OPEN),
        (("i", "i_later"), KeyKind.OPEN),
        (("p",), KeyKind.NONE),
        (("sei", "p0"), KeyKind.NONE),
        (("i", "p"), KeyKind.NONE),
        (("sei",), KeyKind.NONE),
    ],
)
def test_kinds(names: tuple[str, ...], kind: KeyKind) -> None:
    assert key_kind(_by_length(*names), _AVCC) is kind
    for extradata in (None, b"", b"\0\0\0\1\x67"):
        assert key_kind(_by_start_code(*names), extradata) is kind


def test_escapes_are_taken_out() -> None:
    # first_mb_in_slice 2**17 - 1 is 17 zeros, a one, 17 zeros; then slice_type 7. Two bytes of
    # zeros stand in it, and the third, 0b01000000, would not need an escape: the next does.
    bits = "0" * 17 + "1" + "0" * 17 + "0001000" + "000000"
    plain = int(bits, 2).to_bytes(len(bits) // 8, "big")
    escaped = plain.replace(b"\0\0", b"\0\0\3", 1)
    assert key_kind(b"\0\0\1\x41" + escaped, None) is KeyKind.OPEN


def test_lengths_of_two_bytes() -> None:
    packet = b"\0\2\x06\x05" + b"\0\3\x65\x88\x84"
    assert key_kind(packet, bytes([1, 100, 0, 30, 0xFD])) is KeyKind.CLEAN


def test_a_cut_packet_is_no_start() -> None:
    cut = (
        b"",
        b"\0",
        b"\0\0\0\1",
        _by_length("i")[:5],
        b"\0\0\1",
        b"\0\0\1\x41",
        b"\0\0\1\x41\0\0",
    )
    for packet in cut:
        assert key_kind(packet, _AVCC) is KeyKind.NONE
        assert key_kind(packet, None) is KeyKind.NONE


def test_a_length_past_the_end_stops() -> None:
    assert key_kind(b"\xff\xff\xff\xff\x06" + _by_length("idr"), _AVCC) is KeyKind.NONE


@pytest.mark.parametrize(
    ("names", "is_left_out"),
    [
        (("b",), True),
        (("b", "b"), True),
        (("idle", "sei", "b"), True),
        (("p",), False),
        (("b", "p"), False),
        (("idr",), False),
        (("sps", "b"), False),  # later pictures need it
        (("sei",), False),
        ((), False),
    ],
)
def test_what_can_be_left_out(names: tuple[str, ...], is_left_out: bool) -> None:
    assert is_disposable(_by_length(*names), _AVCC) == is_left_out
    assert is_disposable(_by_start_code(*names), None) == is_left_out


def test_a_damaged_packet_is_not_left_out() -> None:
    whole = _by_length("b", "b")
    assert not is_disposable(whole[:-1], _AVCC)
    assert not is_disposable(whole + b"\0", _AVCC)
    assert not is_disposable(b"\xff" + whole[1:], _AVCC)
    forbidden_bit = bytes([0, 0, 0, 2, 0x81, 0x9A])
    assert not is_disposable(forbidden_bit, _AVCC)
