"""Find the rows of a batch that are surely valid, in columns.

`row_rules` says what a valid row is, and decides about all rows that are not surely valid: these are few in most
catalogs. A rule here may be stricter than there, never laxer.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from musictag.catalog.splits import SPLITS
from musictag.catalog.vocabulary import normalized_tag

# Text with one of these characters is not blank.
_VISIBLE = r"[!-~\p{L}\p{N}]"
# Whole numbers from here on are not exact as floating-point numbers.
MAX_WHOLE_FLOAT = 2**53

Mask = npt.NDArray[np.bool_]


def surely_valid(columns: pa.RecordBatch, schema: pa.Schema) -> tuple[Mask, pa.RecordBatch]:
    """Return which rows are surely valid, (N,), and the columns of `schema`, which are right for these rows.

    Args:
        columns: N rows, as `rows.RowBatch` has them.
        schema: columns of text and `tags`. Ids become text, blank text null; tags are normalized and sorted.
    """
    n_rows = len(columns)
    is_valid = np.ones(n_rows, dtype=np.bool_)
    arrays = []
    for name in schema.names:
        column = columns[name] if name in columns.schema.names else pa.nulls(n_rows)
        if name == "tags":
            is_sure, array = _tags(column)
        elif name == "track_id":
            is_sure, array = _required(_whole_numbers(column))
        elif name == "uri":
            is_sure, array = _required(column)
        else:
            is_sure, array = _optional(column)
        if name == "split":
            is_sure &= _mask(pc.or_(pc.is_null(array), pc.is_in(array, pa.array(SPLITS))))
        is_valid &= is_sure
        arrays.append(array)
    return is_valid, pa.record_batch(arrays, schema.names)


def _mask(found: pa.BooleanArray) -> Mask:
    """Return a condition as an array; null is false."""
    values: Mask = found.fill_null(False).to_numpy(zero_copy_only=False)
    return values


def _required(column: pa.Array) -> tuple[Mask, pa.StringArray]:
    """Return which values are text of one line that is surely not blank, and the text."""
    text = _text(column)
    return _mask(pc.match_substring_regex(text, _VISIBLE)) & ~_mask(pc.match_substring(text, "\n")), text


def _optional(column: pa.Array) -> tuple[Mask, pa.StringArray]:
    """Return which values are null, empty or such text, and the text; null in place of empty text."""
    is_sure, text = _required(column)
    is_empty = pc.or_kleene(column.is_null(), pc.equal(text, ""))
    return is_sure | _mask(is_empty), pc.if_else(is_empty, None, text)


def _is_text(data_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(data_type):
        return _is_text(data_type.value_type)
    return bool(data_type in (pa.string(), pa.large_string(), pa.string_view(), pa.null()))


def _is_list_of_text(data_type: pa.DataType) -> bool:
    is_list = any(check(data_type) for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))
    return pa.types.is_null(data_type) or (is_list and _is_text(data_type.value_type))


def _text(column: pa.Array) -> pa.StringArray:
    """Return a column of text; null for values of other types."""
    return column.cast(pa.string()) if _is_text(column.type) else pa.nulls(len(column), pa.string())


def _whole_numbers(column: pa.Array) -> pa.Array:
    """Return a column of numbers as text, null for those that are not whole; other columns as they are."""
    if pa.types.is_float32(column.type) or pa.types.is_float64(column.type):
        is_whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), float(MAX_WHOLE_FLOAT)))
        column = pc.if_else(is_whole, column, None).cast(pa.int64())
    return column.cast(pa.string()) if pa.types.is_integer(column.type) else column


def _tags(column: pa.Array) -> tuple[Mask, pa.ListArray]:
    """Return which lists are surely valid, and the lists with normalized tags, sorted and without repetition."""
    n_rows = len(column)
    if not _is_list_of_text(column.type):
        no_tags = pa.ListArray.from_arrays(pa.array(np.zeros(n_rows + 1, np.int32)), pa.array([], pa.string()))
        return _mask(column.is_null()), no_tags
    lists = column.cast(pa.list_(pa.string()))
    parents = np.repeat(np.arange(n_rows), pc.list_value_length(lists).fill_null(0).to_numpy())
    encoded = lists.flatten().dictionary_encode()
    written = encoded.dictionary.to_pylist()
    normal = list(map(normalized_tag, written))
    names = sorted({*normal} - {""})
    # The last code stands for null.
    codes = encoded.indices.fill_null(len(written)).to_numpy()
    rank_of = {name: rank for rank, name in enumerate(names)}
    ranks = np.array([*(rank_of.get(name, -1) for name in normal), -1])[codes]
    is_problem = np.array([*("\n" in tag for tag in written), True])[codes]
    is_valid = np.ones(n_rows, dtype=np.bool_)
    is_valid[parents[is_problem]] = False
    is_tag = ranks >= 0
    # Numbers that sort as row and tag do.
    rows, kept = np.divmod(np.unique(parents[is_tag] * len(names) + ranks[is_tag]), max(len(names), 1))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_rows))])
    values = pa.array(names, pa.string()).take(pa.array(kept))
    return is_valid, pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
