"""One packet of H.264 → how good a place to start decoding it is, and whether it can be left out.

Knows bytes only.

Containers flag three kinds of pictures as keyframes: a clean start, after which nothing refers back
(IDR); an I picture of an open group, whose leading pictures still refer back; and a point of a
gradual refresh, from which the picture becomes whole over the next second or two, if ever.
"""

import enum
from collections.abc import Iterator

# Source: ITU-T H.264, table 7-1
_SLICE, _IDR_SLICE = 1, 5
_SEI, _DELIMITER, _FILLER = 6, 9, 12
_I_SLICES = frozenset({2, 4, 7, 9})  # I and SI; table 7-6
_START_CODE = b"\0\0\1"
# Two numbers of at most 32 bits each in their longest spelling, and three bytes of escapes.
_HEADER_BYTES = 20


class KeyKind(enum.IntEnum):
    """What a packet that is flagged as a keyframe really is; ordered by worth."""

    NONE = 0
    OPEN = 1
    CLEAN = 2


def key_kind(packet: bytes, extradata: bytes | None) -> KeyKind:
    """Tell the kinds of keyframes apart.

    Args:
        packet: one coded picture.
        extradata: the track's; begins with 1 when units are led by their length (MP4, Matroska),
            else by start codes (MPEG-TS).

    >>> key_kind(bytes([0, 0, 0, 2, 0x65, 0x88]), bytes([1, 100, 0, 30, 0xFF]))
    <KeyKind.CLEAN: 2>
    """
    units = _units(packet, extradata)
    slices = [unit for unit in units if unit[0] & 31 in (_SLICE, _IDR_SLICE)]
    if any(unit[0] & 31 == _IDR_SLICE for unit in slices):
        return KeyKind.CLEAN
    if slices and all(_slice_type(unit) in _I_SLICES for unit in slices):
        return KeyKind.OPEN
    return KeyKind.NONE


def is_disposable(packet: bytes, extradata: bytes | None) -> bool:
    """Say whether no other picture refers to this one: nal_ref_idc is 0 in all of its slices.

    Only of a packet that is whole and holds nothing else that matters: what is damaged has to reach
    the decoder, which tells. Source: ITU-T H.264, 7.4.1.

    Args:
        packet: as in `key_kind`.
        extradata: as in `key_kind`.

    >>> length_first = bytes([1, 100, 0, 30, 0xFF])
    >>> is_disposable(bytes([0, 0, 0, 2, 0x01, 0x9A]), length_first)
    True
    >>> is_disposable(bytes([0, 0, 0, 2, 0x41, 0x9A]), length_first)  # nal_ref_idc 2
    False
    >>> is_disposable(bytes([0, 0, 0, 9, 0x01, 0x9A]), length_first)  # says 9 bytes, has 2
    False
    """
    has_slice = False
    for unit in _units(packet, extradata):
        if unit[0] == _SLICE:  # forbidden bit and nal_ref_idc are 0
            has_slice = True
        elif unit[0] & 31 not in (_SEI, _DELIMITER, _FILLER):
            return False
    return has_slice and _is_whole(packet, _length_bytes(extradata))


def _length_bytes(extradata: bytes | None) -> int:
    """Return the bytes of a unit's length; 0 where units are led by start codes."""
    if extradata and extradata[0] == 1 and len(extradata) > 4:
        return (extradata[4] & 3) + 1
    return 0


def _is_whole(packet: bytes, length_bytes: int) -> bool:
    """Say whether the lengths of the units add up to the packet's."""
    at = 0
    while length_bytes and at < len(packet):
        at += length_bytes + int.from_bytes(packet[at : at + length_bytes], "big")
    return at == len(packet) or not length_bytes


def _units(packet: bytes, extradata: bytes | None) -> Iterator[bytes]:
    """Yield the beginning of each unit."""
    length_bytes = _length_bytes(extradata)
    if length_bytes:
        return _units_by_length(packet, length_bytes)
    return _units_by_start_code(packet)


def _units_by_length(packet: bytes, length_bytes: int) -> Iterator[bytes]:
    at = 0
    while at + length_bytes < len(packet):
        length = int.from_bytes(packet[at : at + length_bytes], "big")
        at += length_bytes
        yield packet[at : at + _HEADER_BYTES]
        at += length


def _units_by_start_code(packet: bytes) -> Iterator[bytes]:
    at = packet.find(_START_CODE)
    while 0 <= at < len(packet) - 3:
        yield packet[at + 3 : at + 3 + _HEADER_BYTES]
        at = packet.find(_START_CODE, at + 3)


def _slice_type(unit: bytes) -> int:
    """Read a slice header's second number; -1 when it is cut short."""
    payload = unit[1:].replace(b"\0\0\3", b"\0\0")  # take the escapes out
    bits = "".join(f"{byte:08b}" for byte in payload)
    number, at = -1, 0
    for _ in range(2):  # first_mb_in_slice, slice_type; Exp-Golomb, 9.1
        zeros = bits.find("1", at) - at
        if zeros < 0 or at + 2 * zeros + 1 > len(bits):
            return -1
        number = int(bits[at + zeros : at + 2 * zeros + 1], 2) - 1
        at += 2 * zeros + 1
    return number
