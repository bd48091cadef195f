"""Warnings are counted by row, whatever numbers stand in them."""

import archive_rows as made

from llava_video.archive.warned import Warned


def test_rows_with_warnings_are_counted_and_the_commonest_is_told() -> None:
    warned = Warned()
    warned.add(made.caption_row(0, "a dog"))
    assert (warned.num_rows, warned.line) == (0, "")
    for number, told in enumerate((["odd.", "2 of 8 frames."], ["1 of 9 frames."], ["even."])):
        row = made.caption_row(number, "a dog")
        row["answers"][0]["warnings"] = told
        row["warnings"] = told[:1]  # the same twice is once
        warned.add(row)
    assert warned.num_rows == 3
    assert warned.kinds == {"odd.": 1, "# of # frames.": 2, "even.": 1}
    assert warned.line == "3 carry warnings, 2 of them: 2 of 8 frames."
