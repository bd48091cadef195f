"""docs/models.md says what the code's own facts say."""

import re

import models_page
import pytest

from llava_video.model.known_models import known_models
from llava_video.model.members import MEMBERS

PAGE = models_page.PAGE.read_text(encoding="utf-8")


def test_the_pages_tables_are_up_to_date() -> None:
    assert models_page.rewritten(PAGE) == PAGE, "run: python benchmarks/models_page.py --write"


def test_a_mark_that_is_missing_is_an_error() -> None:
    with pytest.raises(ValueError, match="'members'"):
        models_page.rewritten(PAGE.replace("<!-- members -->\n", ""))


def test_every_member_has_a_row_and_a_text() -> None:
    rows = list(models_page.member_lines())[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(MEMBERS)
    headings = " ".join(re.findall(r"^## (.*)$", PAGE, flags=re.M))
    assert all(name in headings for name in MEMBERS)
    classes = {row.split(" | ")[0][2:]: row.split(" | ")[-1].strip(" |") for row in rows}
    assert classes["LLaVA"] == classes["LLaVA-Mini"] == "none"
    assert classes["LLaVA-1.5"] == "`LlavaForConditionalGeneration`"
    assert classes["LLaVA-Critic"] == "`LlavaOnevisionForConditionalGeneration`"


def test_every_checkpoint_has_a_row() -> None:
    rows = list(models_page.checkpoint_lines())
    names = [found[1] for row in rows if (found := re.match(r"\| `([^`]+)`", row))]
    assert names == [
        model.name for member in MEMBERS for model in known_models() if model.family == member
    ]
    assert {row.count(" | ") for row in rows[2:] if "`" in row} == {9}
