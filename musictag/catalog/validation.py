"""Check the rows of a catalog: each becomes a track of the catalog's table, or a problem that says what is wrong."""

import dataclasses
import decimal
import math
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from musictag.catalog.formats import OPTIONAL, REQUIRED, NumberedRow, Row
from musictag.catalog.splits import SPLITS
from musictag.catalog.vocabulary import normalized_tag
from musictag.storage import urls
from musictag.storage.text import printable

_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Whole numbers from here on are not exact as floating-point numbers.
_MAX_WHOLE_FLOAT = 2**53

SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("artist", pa.string()),
        pa.field("album", pa.string()),
        pa.field("title", pa.string()),
        pa.field("tags", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string()),
    ]
)


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


def validate(
    rows: Sequence[NumberedRow], root: str, allowed: Sequence[str], advice: Callable[[], str]
) -> tuple[pa.Table, list[Problem]]:
    """Return the usable rows as a table of `SCHEMA` with absolute uris, and a problem for each other row.

    Args:
        rows: the rows of a catalog.
        root: the folder to which relative uris refer.
        allowed: see `storage.urls.rejection_reason`.
        advice: returns what to do about text that is not UTF-8; called only if there is such text.
    """
    ids = [_track_id(fields.get("track_id")) if isinstance(fields, dict) else None for _, fields in rows]
    numbers_by_track = defaultdict(list)
    for (number, _), track_id in zip(rows, ids, strict=True):
        if track_id:
            numbers_by_track[track_id].append(number)

    tracks, problems = [], []
    for (number, row), track_id in zip(rows, ids, strict=True):
        if isinstance(row, str):
            problems.append(Problem(number, f"row {number}", "", row, hides_any_track=True))
            continue
        fields = {name: None if _is_missing(row.get(name)) else row[name] for name in (*REQUIRED, *OPTIONAL)}
        reasons = list(_invalid_fields(fields, track_id, advice))
        numbers = numbers_by_track.get(track_id or "", [])
        if len(numbers) > 1:
            reasons.append(f"track_id is not unique: rows {', '.join(map(str, numbers[:5]))} have it; none is used")
        if not reasons and (reason := urls.rejection_reason(_absolute(str(fields["uri"]), root), allowed)):
            reasons.append(reason)
        if reasons:
            name = encodable(track_id or fields["track_id"] or f"row {number}")
            has_readable_id = track_id is not None and _is_utf8(track_id)
            hides_any_track = not has_readable_id or any(map(_has_several_lines, fields.values()))
            uri = encodable(fields["uri"] or "")
            problems.append(Problem(number, name, uri, "; ".join(reasons), hides_any_track))
        else:
            tracks.append(_track(fields, str(track_id), root))
    return pa.Table.from_pylist(tracks, SCHEMA), problems


def _track_id(value: object) -> str | None:
    """Return the text of an id; None if it is missing, or neither text nor a whole number.

    A column of whole numbers is stored as floating-point numbers if one of them is missing: 7.0 is the id 7.
    """
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_WHOLE_FLOAT:
        return str(int(value))
    if isinstance(value, decimal.Decimal) and value.is_finite() and value == value.to_integral_value():
        return str(int(value))
    return None


def _track(fields: Row, track_id: str, root: str) -> Row:
    """Return the columns of `SCHEMA` of a valid row."""
    tags = {normalized_tag(tag) for tag in fields["tags"] or []} - {""}
    return {
        **{name: fields[name] or None for name in SCHEMA.names},
        "track_id": track_id,
        "uri": _absolute(fields["uri"], root),
        "tags": sorted(tags),
    }


def _invalid_fields(fields: Row, track_id: str | None, advice: Callable[[], str]) -> Iterator[str]:
    """Yield a message for everything that is wrong with the fields of a row."""
    if track_id is None:
        value = fields["track_id"]
        yield "track_id is empty" if value is None else f"track_id is {value!r}: it must be text or a whole number"
    if fields["uri"] is None:
        yield "uri is empty"
    for name in ("uri", "artist", "album", "title", "split"):
        if not isinstance(fields[name], str | None):
            yield f"{name} is not text: {fields[name]!r}"
    for name in (*REQUIRED, *OPTIONAL):
        if isinstance(fields[name], str) and not _is_utf8(fields[name]):
            yield f"{name} is not UTF-8: {encodable(fields[name])!r}; {advice()}"
    for name in (*REQUIRED, *OPTIONAL):
        if _has_several_lines(fields[name]):
            yield f"{name} has several lines: is a quote not closed?"
    if (split := fields["split"]) and split not in SPLITS:
        yield f"unknown split {split!r}: use one of {', '.join(SPLITS)}, or leave it empty"
    tags = fields["tags"] or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        yield f"tags is not a list of text: {tags!r}"
    elif not all(map(_is_utf8, tags)):
        yield f"tags is not UTF-8: {encodable(tags)}; {advice()}"


def _has_several_lines(value: object) -> bool:
    return any("\n" in text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))


def _is_missing(value: object) -> bool:
    """Return whether a field has no value: null, NaN (a missing value of pandas) or blank text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _absolute(uri: str, root: str) -> str:
    uri = urls.expanded_home(uri)
    if "://" in uri or uri.startswith("/") or urls.local_path(uri):
        return uri
    return f"{root}/{uri}" if "://" in root else posixpath.normpath(f"{root}/{uri}")


def _is_utf8(text: str) -> bool:
    return not _SURROGATE.search(text)


def encodable(text: object) -> str:
    r"""Return the text with escapes such as `\udcff` in place of what is not UTF-8."""
    return str(text).encode("utf-8", "backslashreplace").decode()
