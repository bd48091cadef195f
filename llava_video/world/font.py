"""Capital letters and digits → bitmaps of 5 x 7, so that no font file is needed."""

from typing import Final

import numpy as np
import numpy.typing as npt

LETTER_HEIGHT: Final = 7
_LETTER_WIDTH: Final = 5
# Seven rows a letter, two hexadecimal digits a row, the highest of five bits at the left.
_ROWS: Final = {
    "A": "0E11111F111111", "B": "1E11111E11111E", "C": "0E11101010110E", "D": "1E11111111111E",
    "E": "1F10101E10101F", "F": "1F10101E101010", "G": "0E11101711110F", "H": "1111111F111111",
    "I": "0E04040404040E", "J": "0702020202120C", "K": "11121418141211", "L": "1010101010101F",
    "M": "111B1515111111", "N": "11191513111111", "O": "0E11111111110E", "P": "1E11111E101010",
    "Q": "0E11111115120D", "R": "1E11111E141211", "S": "0F10100E01011E", "T": "1F040404040404",
    "U": "1111111111110E", "V": "11111111110A04", "W": "111111151B1B11", "X": "11110A040A1111",
    "Y": "11110A04040404", "Z": "1F01020408101F", "0": "0E11131519110E", "1": "040C040404040E",
    "2": "0E11010204081F", "3": "1F02040201110E", "4": "02060A121F0202", "5": "1F101E0101110E",
    "6": "0608101E11110E", "7": "1F010204080808", "8": "0E11110E11110E", "9": "0E11110F01020C",
}  # fmt: skip


def write_text(text: str, scale: int) -> npt.NDArray[np.bool_]:
    """Write a text in one line.

    Args:
        text: capital letters and digits, at least one.
        scale: px per dot of a letter, >= 1.

    Returns:
        (7 * scale, (6 * len(text) - 1) * scale), True where there is ink.

    Raises:
        KeyError: a character that is none of these.
    """
    gap = np.zeros((LETTER_HEIGHT, 1), dtype=np.bool_)
    columns = [part for letter in text for part in (_letter(letter), gap)][:-1]
    return np.concatenate(columns, axis=1).repeat(scale, axis=0).repeat(scale, axis=1)


def _letter(letter: str) -> npt.NDArray[np.bool_]:
    rows = np.frombuffer(bytes.fromhex(_ROWS[letter]), dtype=np.uint8)
    bits = rows[:, None] >> np.arange(_LETTER_WIDTH)[::-1]
    return np.asarray(bits & 1, dtype=np.bool_)
