"""One packet of H.264 → whether decoding can really start there. Knows bytes only.

Containers also flag pictures as keyframes where decoding can merely join in: open GOPs, whose next
pictures still refer back, and gradual refreshes, which take a second to become whole.
"""

from collections.abc import Iterator

_IDR_SLICE = 5  # Source: ITU-T H.264, table 7-1
_START_CODE = b"\0\0\1"


def has_idr(packet: bytes, extradata: bytes | None) -> bool:
    """Say whether a packet holds a picture that nothing after it refers behind.

    Args:
        packet: one coded picture.
        extradata: the track's; begins with 1 when units are led by their length (MP4, Matroska),
            else by start codes (MPEG-TS).

    >>> has_idr(bytes([0, 0, 0, 2, 0x65, 0x88]), bytes([1, 100, 0, 30, 0xFF]))
    True
    """
    if extradata and extradata[0] == 1 and len(extradata) > 4:
        kinds = _kinds_by_length(packet, (extradata[4] & 3) + 1)
    else:
        kinds = _kinds_by_start_code(packet)
    return _IDR_SLICE in kinds


def _kinds_by_length(packet: bytes, length_bytes: int) -> Iterator[int]:
    at = 0
    while at + length_bytes < len(packet):
        length = int.from_bytes(packet[at : at + length_bytes], "big")
        yield packet[at + length_bytes] & 31
        at += length_bytes + length


def _kinds_by_start_code(packet: bytes) -> Iterator[int]:
    at = packet.find(_START_CODE)
    while 0 <= at < len(packet) - 3:
        yield packet[at + 3] & 31
        at = packet.find(_START_CODE, at + 3)
