"""One table of fields → what a row holds, as JSON Schema and as columns.

Readers, Parquet and the documentation follow this table; it changes with `SCHEMA_VERSION` alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

SCHEMA_VERSION: Final = 1

Kind = Literal["text", "int", "float", "bool", "json", "group"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a row.

    Attributes:
        name: its name; seconds end in `_s`.
        kind: what stands in it; "json" is any JSON value, "group" an object of `fields`.
        doc: what it says.
        is_list: whether it is a list of such values.
        may_be_null: whether null may stand in its place.
        fields: of a group.
    """

    name: str
    kind: Kind
    doc: str
    is_list: bool = False
    may_be_null: bool = False
    fields: tuple["Field", ...] = ()


_SPAN = (
    Field("start_s", "float", "Where it begins."),
    Field("end_s", "float", "Where it ends."),
)
_VIDEO = (
    Field("address", "text", "Path or URL as it was given."),
    Field("name", "text", "What it is called in tracks and reports."),
    Field("sha256", "text", "Of the file's bytes, hexadecimal; empty where it was never read."),
    Field("start_s", "float", "Where the asked span begins.", may_be_null=True),
    Field("end_s", "float", "Where the asked span ends.", may_be_null=True),
)
_ASKED = (
    Field("task", "text", "`caption`, `ask` or `timeline`."),
    Field("prompts", "text", "As given; empty for the model's own.", is_list=True),
    Field("options", "json", "Options of every answer, as `LlavaVideo.describe` takes them."),
    Field("window_s", "float", "Length of a window of a timeline.", may_be_null=True),
    Field("overlap_s", "float", "What neighbouring windows share.", may_be_null=True),
    Field("has_summary", "bool", "Whether a timeline's captions are merged."),
)
_USAGE = (
    Field("text_tokens", "int", "Of the prompt."),
    Field("visual_tokens", "int", "Of the frames."),
    Field("new_tokens", "int", "Of the answer."),
)
_ANSWER = (
    Field("prompt", "text", "What was asked; empty for the model's own request."),
    *_SPAN,
    Field("text", "text", "The answer."),
    Field("parsed", "json", "The typed answer; null of free text."),
    Field("confidence", "float", "Of the choice among the choices, 0..1.", may_be_null=True),
    Field("finish_reason", "text", "`stop`, `length`, `loop` or `cancelled`."),
    Field("frame_idxs", "int", "Indices of the frames that were seen.", is_list=True),
    Field("times_s", "float", "Their presentation times.", is_list=True),
    Field("plan", "json", "The whole plan; `planning.plan_json` reads it back."),
    Field("usage", "group", "Tokens.", fields=_USAGE),
    Field("coverage", "group", "Spans the frames stand for.", is_list=True, fields=_SPAN),
    Field("warnings", "text", "To be known before the text is believed.", is_list=True),
)
_ERROR = (
    Field("kind", "text", "Class of the error."),
    Field("message", "text", "What was asked and found."),
    Field("hint", "text", "What to do; may be empty."),
    Field("position_s", "float", "Where in the video.", may_be_null=True),
)
_PROVENANCE = (
    Field("model", "text", "Name or folder of the checkpoint."),
    Field("revision", "text", "Its revision on the hub.", may_be_null=True),
    Field("weights", "text", "Hash that the run's keys have of the weights; may be empty."),
    Field("seed", "int", "Of sampling."),
    Field("reader", "text", "Which reader decoded the video; empty of an error."),
    Field("reader_reason", "text", "Why that one."),
    Field("versions", "json", "Package or `python` → version."),
    Field(
        "server", "json", "What a server says of itself that answered; null of a model run here."
    ),
)
_RUN = (
    Field("finished_at", "text", "Wall clock, ISO 8601 in UTC."),
    Field("host", "text", "The machine's name."),
    Field("worker", "text", "Which worker of the run."),
    Field("attempts", "int", "How often it was tried."),
    Field("reused_tokens", "int", "Prompt tokens that stood in the cache already."),
)

ROW: Final = Field(
    "row",
    "group",
    "The end of one unit of work.",
    fields=(
        Field("schema", "int", f"Version of this table: {SCHEMA_VERSION}."),
        Field("number", "int", "Place in the inputs, from 0."),
        Field("key", "text", "Hash of content, span, task and model: the unit's identity."),
        Field("status", "text", "`done`, `failed`, `quarantined` or `duplicate`."),
        Field("video", "group", "What was looked at.", fields=_VIDEO),
        Field("asked", "group", "What was asked, all that a replay needs.", fields=_ASKED),
        Field("answers", "group", "One per prompt, or per window.", is_list=True, fields=_ANSWER),
        Field("summary", "text", "A timeline's captions merged; else empty."),
        Field("warnings", "text", "Of the whole: windows that failed.", is_list=True),
        Field("error", "group", "Why there is no answer.", may_be_null=True, fields=_ERROR),
        Field("duplicate_of", "int", "Number of the row that has it.", may_be_null=True),
        Field("provenance", "group", "What answered.", fields=_PROVENANCE),
        Field("timings", "json", "Stage → seconds, summed over answers."),
        Field("run", "group", "When and where; comparisons leave it out.", fields=_RUN),
    ),
)

_JSON_TYPES: Final = {"text": "string", "int": "integer", "float": "number", "bool": "boolean"}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a row."""
    return {"title": f"llava_video archive row {SCHEMA_VERSION}"} | _schema_of(ROW)


def flat_fields(field: Field = ROW, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Yield every field with its dotted name, "answers[].usage.new_tokens", in order."""
    for inner in field.fields:
        name = prefix + inner.name + ("[]" if inner.is_list else "")
        yield name, inner
        yield from flat_fields(inner, name + ".")


def _schema_of(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    if field.kind == "group":
        schema = {
            "type": "object",
            "properties": {inner.name: _schema_of(inner) for inner in field.fields},
            "required": [inner.name for inner in field.fields],
            "additionalProperties": False,
        }
    elif field.kind != "json":
        schema = {"type": _JSON_TYPES[field.kind]}
    if field.is_list:
        schema = {"type": "array", "items": schema}
    if field.may_be_null:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return schema | {"description": field.doc}
