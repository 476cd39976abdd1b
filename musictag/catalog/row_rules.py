"""Say of a single row of a catalog whether it is valid, or everything that is wrong with it."""

import decimal
import math
from collections.abc import Callable, Iterator

from musictag.catalog.column_rules import MAX_WHOLE_FLOAT
from musictag.catalog.rows import KNOWN, Row, is_utf8
from musictag.catalog.splits import SPLITS
from musictag.catalog.vocabulary import normalized_tag

_TEXTS = ("uri", "artist", "album", "title", "split", "etag")


def present_fields(row: Row) -> Row:
    """Return the known fields of a row; those without a value are None."""
    return {name: None if _is_missing(row.get(name)) else row[name] for name in KNOWN}


def id_text(value: object) -> str | None:
    """Return the text of an id; None if it is missing, or neither text nor a whole number.

    A column of whole numbers is stored as floating-point numbers if one of them is missing: 7.0 is the id 7.
    """
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_WHOLE_FLOAT:
        return str(int(value))
    if isinstance(value, decimal.Decimal) and value.is_finite() and value == value.to_integral_value():
        return str(int(value))
    return None


def valid_row(fields: Row, track_id: str) -> Row:
    """Return the columns of a valid row as the catalog's table has them, but with the uri as it is written."""
    tags = {normalized_tag(tag) for tag in fields["tags"] or []} - {""}
    return {**{name: fields[name] or None for name in KNOWN}, "track_id": track_id, "tags": sorted(tags)}


def invalid_fields(fields: Row, track_id: str | None, advice: Callable[[], str]) -> Iterator[str]:
    """Yield a message for everything that is wrong with the present fields of a row.

    Args:
        fields: a result of `present_fields`.
        track_id: the text of its id, a result of `id_text`.
        advice: returns what to do about text that is not UTF-8.
    """
    if track_id is None:
        value = fields["track_id"]
        yield "track_id is empty" if value is None else f"track_id is {value!r}: it must be text or a whole number"
    if fields["uri"] is None:
        yield "uri is empty"
    for name in _TEXTS:
        if not isinstance(fields[name], str | None):
            yield f"{name} is not text: {fields[name]!r}"
    for name in KNOWN:
        if isinstance(fields[name], str) and not is_utf8(fields[name]):
            yield f"{name} is not UTF-8: {encodable(fields[name])!r}; {advice()}"
    for name in KNOWN:
        if has_several_lines(fields[name]):
            yield f"{name} has several lines: is a quote not closed?"
    if (split := fields["split"]) and split not in SPLITS:
        yield f"unknown split {split!r}: use one of {', '.join(SPLITS)}, or leave it empty"
    tags = fields["tags"] or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        yield f"tags is not a list of text: {tags!r}"
    elif not all(map(is_utf8, tags)):
        yield f"tags is not UTF-8: {encodable(tags)}; {advice()}"


def has_several_lines(value: object) -> bool:
    return any("\n" in text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))


def _is_missing(value: object) -> bool:
    """Return whether a field has no value: null, NaN (a missing value of pandas) or blank text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def encodable(text: object) -> str:
    r"""Return the text with escapes such as `\udcff` in place of what is not UTF-8."""
    return str(text).encode("utf-8", "backslashreplace").decode()
