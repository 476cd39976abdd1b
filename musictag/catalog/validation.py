"""Check the rows of a catalog: each becomes a track of the catalog's table, or a problem that says what is wrong.

Rows come in batches of columns. Most are surely valid, which `column_rules` sees without a Python object for each;
`row_rules` decides about the others.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from musictag.catalog import column_rules, places, row_rules
from musictag.catalog.repeated_ids import KEYS_SCHEMA, repeated_ids
from musictag.catalog.row_rules import encodable
from musictag.catalog.rows import Row, RowBatch, is_utf8
from musictag.storage.text import printable

SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("artist", pa.string()),
        pa.field("album", pa.string()),
        pa.field("title", pa.string()),
        pa.field("tags", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string()),
        pa.field("etag", pa.string()),
    ]
)
"""Columns of a catalog's tracks. An etag is null unless the catalog, or the listing of its folder, tells it."""
PROBLEMS_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("hides_any_track", pa.bool_(), nullable=False),
    ]
)
"""Columns of a table of problems, the fields of `Problem`."""

_NUMBERED_SCHEMA = pa.schema([pa.field("row", pa.int64()), *SCHEMA])
# The key of a problem is its id, with which other rows may be compared; null if it has none.
_KEYED_SCHEMA = pa.schema([*PROBLEMS_SCHEMA, pa.field("key", pa.binary())])
_PROBLEMS_BATCH = 10_000


@dataclasses.dataclass(frozen=True)
class Problem:
    """A catalog row that cannot be used, or a folder of a catalog that cannot be listed."""

    row: int | None
    """Line number in a text file, or row number in a Parquet file, counted from 1; None for a folder."""
    track_id: str
    """The row's id, or `row N` if it has none; the relative path of a folder, with a slash at its end."""
    uri: str
    message: str
    """Everything that is wrong."""
    hides_any_track: bool = False
    """Whether the row may be that of any track, because its id cannot be read, or may hold other rows."""

    @property
    def reason(self) -> str:
        """The message, with the number of the row."""
        return self.message if self.row is None else f"row {self.row}: {self.message}"

    def __str__(self) -> str:
        place = self.track_id if self.row is None else f"row {self.row} ({self.track_id})"
        return printable(f"{place}: {self.message}")


def problems_table(problems: Iterable[Problem]) -> pa.Table:
    """Return problems as a table of `PROBLEMS_SCHEMA`."""
    return pa.Table.from_pylist(list(map(vars, problems)), PROBLEMS_SCHEMA)


def iter_problems(problems: pa.Table) -> Iterator[Problem]:
    """Yield the rows of a table of `PROBLEMS_SCHEMA`; memory holds some of them."""
    for batch in problems.to_batches(_PROBLEMS_BATCH):
        for row in batch.to_pylist():
            yield Problem(**row)


def validate(
    batches: Iterable[RowBatch],
    root: str,
    allowed: Sequence[str],
    advice: Callable[[], str],
    columns: Sequence[str] = tuple(SCHEMA.names),
) -> tuple[pa.Table, pa.Table]:
    """Return the usable rows with absolute uris, and a problem for each other row, both in the order of the catalog.

    Args:
        batches: the rows of a catalog.
        root: the folder to which relative uris refer.
        allowed: see `storage.urls.rejection_reason`.
        advice: returns what to do about text that is not UTF-8; called only if there is such text.
        columns: the columns of `SCHEMA` to return; memory holds no others.

    Returns:
        A table of `SCHEMA`, with the given columns, and a table of `PROBLEMS_SCHEMA`.
    """
    kept = [name for name in _NUMBERED_SCHEMA.names if name in {"row", "track_id", "uri", *columns}]
    valid: list[pa.Table] = []
    invalid = [_KEYED_SCHEMA.empty_table()]
    has_float_ids = True
    for batch in batches:
        rows, problems = _check_rows(batch, advice)
        valid.append(rows.select(kept))
        invalid.append(problems)
        has_float_ids &= batch.has_float_ids
    problems = pa.concat_tables(invalid)
    if has_float_ids:
        valid, problems = [_without_zeros(rows) for rows in valid], _without_zeros(problems)
    repeated = repeated_ids([*map(_keys, valid), problems.select(KEYS_SCHEMA.names)])
    found = [_with_repeated(problems, *repeated)]
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    tracks = [schema.empty_table()]
    for index, rows in enumerate(valid):
        usable, unusable = _place(rows, root, allowed, *repeated)
        valid[index] = None  # frees its memory
        tracks.append(usable.select(schema.names).cast(schema))
        found.append(unusable)
    return pa.concat_tables(tracks), pa.concat_tables(found).sort_by("row")


def _check_rows(batch: RowBatch, advice: Callable[[], str]) -> tuple[pa.Table, pa.Table]:
    """Return the valid rows of a batch, of `_NUMBERED_SCHEMA`, and its problems, of `_KEYED_SCHEMA`.

    Neither is compared with other rows, nor are uris resolved.
    """
    is_valid, columns = column_rules.surely_valid(batch.columns, SCHEMA)
    rows = pa.Table.from_batches([columns]).add_column(0, "row", pa.array(batch.numbers))
    rows = rows.filter(pa.array(is_valid)).cast(_NUMBERED_SCHEMA)
    in_columns = [(int(batch.numbers[n]), _fields(batch.columns, n)) for n in np.flatnonzero(~is_valid).tolist()]
    unsure = sorted([*in_columns, *batch.others], key=lambda row: row[0])
    if not unsure:
        return rows, _KEYED_SCHEMA.empty_table()
    checked, problems = [], []
    for number, row in unsure:
        valid, problem = _check_row(number, row, advice)
        checked += [valid] if valid else []
        problems += [problem] if problem else []
    if checked:
        rows = pa.concat_tables([rows, pa.Table.from_pylist(checked, _NUMBERED_SCHEMA)]).sort_by("row")
    return rows, pa.Table.from_pylist(problems, _KEYED_SCHEMA)


def _fields(columns: pa.RecordBatch, n: int) -> Row:
    """Return the fields of the row at a position. Arrow cannot filter columns of all types."""
    return {name: column[n].as_py() for name, column in zip(columns.schema.names, columns.columns, strict=True)}


def _check_row(number: int, row: Row | str, advice: Callable[[], str]) -> tuple[Row | None, Row | None]:
    """Return a row of `_NUMBERED_SCHEMA` if it is valid, else a problem of `_KEYED_SCHEMA`."""
    if isinstance(row, str):
        return None, vars(Problem(number, f"row {number}", "", row, hides_any_track=True))
    fields = row_rules.present_fields(row)
    track_id = row_rules.id_text(row.get("track_id"))
    reasons = "; ".join(row_rules.invalid_fields(fields, track_id, advice))
    if track_id is not None and not reasons:
        return {"row": number, **row_rules.valid_row(fields, track_id)}, None
    name = encodable(track_id or fields["track_id"] or f"row {number}")
    has_readable_id = track_id is not None and is_utf8(track_id)
    hides_any_track = not has_readable_id or any(map(row_rules.has_several_lines, fields.values()))
    problem = Problem(number, name, encodable(fields["uri"] or ""), reasons, hides_any_track)
    key = None if track_id is None else track_id.encode("utf-8", "surrogatepass")
    return None, {**vars(problem), "key": key}


def _without_zeros(rows: pa.Table) -> pa.Table:
    """Return rows without the `.0` at the end of their ids."""
    for name in {"track_id", "key"} & {*rows.column_names}:
        ids = pc.replace_substring_regex(rows[name], r"\.0$", "")
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), ids)
    return rows


def _keys(rows: pa.Table) -> pa.Table:
    """Return the rows as a table of `repeated_ids.KEYS_SCHEMA`, without copying the ids."""
    return pa.table([rows["row"], rows["track_id"].cast(pa.binary())], schema=KEYS_SCHEMA)


def _with_repeated(problems: pa.Table, repeated: npt.NDArray[np.int64], messages: pa.StringArray) -> pa.Table:
    """Return problems of `PROBLEMS_SCHEMA`, whose messages also say whether the id is repeated."""
    is_repeated, message = _messages_of(problems["row"], repeated, messages)
    both = pc.binary_join_element_wise(problems["message"], message, "; ")
    position = problems.schema.get_field_index("message")
    joined = pc.if_else(pa.array(is_repeated), both, problems["message"])
    return problems.set_column(position, problems.schema.field(position), joined).select(PROBLEMS_SCHEMA.names)


def _messages_of(
    numbers: pa.ChunkedArray, repeated: npt.NDArray[np.int64], messages: pa.StringArray
) -> tuple[npt.NDArray[np.bool_], pa.Array]:
    """Return whether the id of each row is repeated, and the message if it is, else null; both are (N,)."""
    rows = numbers.to_numpy()
    position = np.searchsorted(repeated, rows)
    is_repeated = np.append(repeated, -1)[position] == rows
    return is_repeated, messages.take(pa.array(position, mask=~is_repeated))


def _place(
    rows: pa.Table, root: str, allowed: Sequence[str], repeated: npt.NDArray[np.int64], messages: pa.StringArray
) -> tuple[pa.Table, pa.Table]:
    """Return the rows whose ids are not repeated and whose uris are allowed, resolved; and the problems of the others.

    Args:
        rows: valid rows, of `_NUMBERED_SCHEMA` or fewer columns.
        root: the folder to which relative uris refer.
        allowed: see `storage.urls.rejection_reason`.
        repeated: the numbers of rows whose ids are repeated, ascending.
        messages: what is wrong with each of these.
    """
    is_repeated, message = _messages_of(rows["row"], repeated, messages)
    problems = _problems(rows, pa.array(is_repeated), message)
    rows = rows.filter(pa.array(~is_repeated))
    written = rows["uri"].combine_chunks()
    uris = places.absolute_uris(written, root)
    reasons = places.rejection_reasons(uris, allowed)
    is_rejected = np.zeros(len(rows), dtype=np.bool_)
    is_rejected[list(reasons)] = True
    message = pa.array([reasons.get(n) for n in range(len(rows))], pa.string()) if reasons else pa.nulls(len(rows))
    rejected = _problems(rows, pa.array(is_rejected), message.cast(pa.string()))
    rows = rows.set_column(rows.schema.get_field_index("uri"), rows.schema.field("uri"), uris)
    return rows.filter(pa.array(~is_rejected)), pa.concat_tables([problems, rejected])


def _problems(rows: pa.Table, is_problem: pa.BooleanArray, messages: pa.StringArray) -> pa.Table:
    """Return the problems of some valid rows."""
    found = rows.select(["row", "track_id", "uri"]).append_column("message", messages).filter(is_problem)
    return found.append_column("hides_any_track", pa.array(np.zeros(len(found), dtype=np.bool_))).cast(PROBLEMS_SCHEMA)
