from llava_video.video.h264 import has_idr

# SEI (6), then a slice: IDR (5) or not (1); the upper bits of the byte are the reference idc.
_UNITS = {"sei": b"\x06\x05", "idr": b"\x65\x88\x84", "slice": b"\x41\x9a"}
_AVCC = bytes([1, 100, 0, 30, 0xFF])  # lengths of (0xFF & 3) + 1 = 4 bytes


def _by_length(*names: str) -> bytes:
    return b"".join(len(_UNITS[n]).to_bytes(4, "big") + _UNITS[n] for n in names)


def _by_start_code(*names: str) -> bytes:
    return b"".join(b"\0\0\0\1" + _UNITS[n] for n in names)


def test_units_led_by_their_length() -> None:
    assert has_idr(_by_length("sei", "idr"), _AVCC)
    assert not has_idr(_by_length("sei", "slice"), _AVCC)


def test_units_led_by_start_codes() -> None:
    for extradata in (None, b"", b"\0\0\0\1\x67"):
        assert has_idr(_by_start_code("sei", "idr"), extradata)
        assert not has_idr(_by_start_code("sei", "slice"), extradata)


def test_lengths_of_two_bytes() -> None:
    packet = b"\0\2\x06\x05" + b"\0\3\x65\x88\x84"
    assert has_idr(packet, bytes([1, 100, 0, 30, 0xFD]))


def test_a_cut_packet_is_no_clean_start() -> None:
    for packet in (b"", b"\0", b"\0\0\0\1", _by_length("idr")[:4], b"\0\0\1"):
        assert not has_idr(packet, _AVCC)
        assert not has_idr(packet, None)


def test_a_length_past_the_end_stops() -> None:
    assert not has_idr(b"\xff\xff\xff\xff\x41\x65\x65", _AVCC)
