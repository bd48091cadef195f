"""The table of a row's fields is what rows are, what is documented, and notices what is not."""

from pathlib import Path

import archive_rows as made
import pytest
from jsonschema import Draft202012Validator, ValidationError

from llava_video.archive.row_schema import ROW, SCHEMA_VERSION, flat_fields, json_schema

VALID = Draft202012Validator(json_schema())


def test_the_schema_is_one_and_names_its_version() -> None:
    Draft202012Validator.check_schema(json_schema())
    assert json_schema()["title"].endswith(str(SCHEMA_VERSION))
    assert [field.name for field in ROW.fields][:4] == ["schema", "number", "key", "status"]


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"number": "4"},
        {"error": {"kind": "X"}},
        {"answers": [{}]},
        {"summary": None},
    ],
)
def test_a_row_of_other_fields_is_noticed(change: dict[str, object]) -> None:
    row = made.ask_row(0, {"What?": "A dog.", "Where?": "Here."})
    VALID.validate(row)
    with pytest.raises(ValidationError):
        VALID.validate(row | change)


def test_every_field_is_documented(project: Path) -> None:
    text = (project / "docs/archive.md").read_text(encoding="utf-8")
    for name, field in flat_fields():
        assert f"| `{name}` |" in text, name
        assert field.doc in text, name
