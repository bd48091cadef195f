"""Rows → Parquet files with the columns of the schema, and back, equal. Needs pyarrow.

What is any JSON value (plans, typed answers, options) stands in a column of JSON text.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from llava_video.archive.row import Row, checked_row, plain_text
from llava_video.archive.row_schema import ROW, SCHEMA_VERSION, Field
from llava_video.backends import require
from llava_video.errors import ConfigError
from llava_video.files import replacing

_VERSION_KEY: Final = b"llava_video.archive.schema"
# Of some 4 KB each: a row group of a few MB compressed.
_ROWS_PER_GROUP: Final = 2000


def write_parquet(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write rows, some thousand at a time; the file appears whole or not at all.

    Returns:
        Rows written.

    Raises:
        BackendMissingError: without pyarrow.
        OSError: the file cannot be written.
    """
    pa, parquet = require("pyarrow"), _parquet()
    schema = pa.schema([_column(pa, field) for field in ROW.fields])
    schema = schema.with_metadata({_VERSION_KEY: str(SCHEMA_VERSION)})
    num_rows = 0
    with (
        replacing(path) as unfinished,
        parquet.ParquetWriter(unfinished, schema, compression="zstd") as writer,
    ):
        for some in _groups(rows):
            plain = [_to_columns(ROW, row) for row in some]
            writer.write_table(pa.Table.from_pylist(plain, schema=schema))
            num_rows += len(some)
    return num_rows


def read_parquet(path: Path) -> Iterator[Row]:
    """Yield the rows of a file that `write_parquet` wrote, equal to those given.

    Only half a character of a file name that is no UTF-8 comes back as its escape.

    Raises:
        ConfigError: it is none, or of another version.
        BackendMissingError: without pyarrow.
    """
    pa, parquet = require("pyarrow"), _parquet()
    try:
        file = parquet.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as cause:
        raise ConfigError(f"{path} is no Parquet file: {cause}.", "name another.") from cause
    with file:
        if _VERSION_KEY not in (file.schema_arrow.metadata or {}):
            raise ConfigError(f"{path} holds no rows of an archive.", "name another file.")
        for batch in file.iter_batches(_ROWS_PER_GROUP):
            for values in batch.to_pylist():
                yield checked_row(_from_columns(ROW, values), f"a row of {path}")


def _parquet() -> Any:
    import pyarrow.parquet  # a part of the package that `require` does not load

    return pyarrow.parquet


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    source = iter(rows)
    while some := list(islice(source, _ROWS_PER_GROUP)):
        yield some


def _column(pa: Any, field: Field) -> Any:
    return pa.field(field.name, _type(pa, field), metadata={"doc": field.doc})


def _type(pa: Any, field: Field) -> Any:
    if field.kind == "group":
        kind = pa.struct([_column(pa, inner) for inner in field.fields])
    else:
        kind = {
            "text": pa.string(),
            "json": pa.string(),
            "int": pa.int64(),
            "float": pa.float64(),
            "bool": pa.bool_(),
        }[field.kind]
    return pa.list_(kind) if field.is_list else kind


def _to_columns(field: Field, value: Any) -> Any:
    """Turn a value of a row into what its column holds."""
    if field.kind == "json":
        return plain_text(json.dumps(value, ensure_ascii=False))
    return _each(field, value, _to_columns)


def _from_columns(field: Field, value: Any) -> Any:
    if field.kind == "json":
        return json.loads(value)
    return _each(field, value, _from_columns)


def _each(field: Field, value: Any, change: Callable[[Field, Any], Any]) -> Any:
    if value is None:
        return None
    if field.is_list:
        one = replace(field, is_list=False)
        return [change(one, item) for item in value]
    if field.kind == "group":
        return {inner.name: change(inner, value[inner.name]) for inner in field.fields}
    return plain_text(value) if field.kind == "text" else value
