import struct
from itertools import takewhile

import numpy as np
import pytest

from musictag.errors import ModelError
from musictag.models.published.tf_checkpoint import read_checkpoint

FLOAT32, INT64 = 1, 9
DTYPES = {np.dtype("<f4"): FLOAT32, np.dtype("<i8"): INT64}
MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
HEADER = b"\x08\x01\x1a\x02\x08\x01"
CRC32C = b"\x35\x01\x02\x03\x04"  # the field of every entry, not looked at

VARIABLES = {
    "batch_normalization/beta": np.arange(3, dtype="<f4"),
    "batch_normalization/gamma": np.full(300, 0.25, "<f4"),  # its size takes two bytes
    "beta1_power": np.array(0.9, "<f4"),
    "dense/kernel": np.arange(24, dtype="<f4").reshape(2, 3, 4),
    "dense/no_rows": np.zeros((0, 4), "<f4"),
    "global_step": np.array(7, "<i8"),
    "last": np.array([1.5, -2.5], "<f4"),
}

Pair = tuple[bytes, bytes]


def varint(number: int) -> bytes:
    digits = []
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protocol buffer; numbers that are 0 are left out, as proto3 does."""
    written = b""
    for number, value in fields:
        if isinstance(value, bytes):
            written += varint(number << 3 | 2) + varint(len(value)) + value
        elif value:
            written += varint(number << 3) + varint(value)
    return written


def entry(dtype: int, shape: tuple[int, ...], offset: int, size: int) -> bytes:
    dims = message(*((2, message((1, dim))) for dim in shape))
    return message((1, dtype), (2, dims), (4, offset), (5, size)) + CRC32C


def block(pairs: list[Pair], restart_interval: int = 2) -> bytes:
    written, restarts, previous = b"", [], b""
    for position, (key, value) in enumerate(pairs):
        shared = len(list(takewhile(lambda both: both[0] == both[1], zip(key, previous, strict=False))))
        if position % restart_interval == 0:
            shared = 0
            restarts.append(len(written))
        written += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return written + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def table(pairs: list[Pair], per_block: int = 3, compression: bytes = b"\0") -> bytes:
    """A LevelDB table: data blocks, the meta index, the index block, and the footer with the places of these two."""
    written = b""

    def place(content: bytes) -> bytes:
        nonlocal written
        handle = varint(len(written)) + varint(len(content))
        written += content + compression + b"crc4"
        return handle

    groups = [pairs[start : start + per_block] for start in range(0, len(pairs), per_block)]
    index = [(group[-1][0], place(block(group))) for group in groups]
    handles = place(block([])) + place(block(index))
    return written + handles.ljust(40, b"\0") + MAGIC


def checkpoint(variables: dict[str, np.ndarray]) -> tuple[list[Pair], bytes]:
    """The pairs of the `.index` table and the content of the `.data` file."""
    pairs, data = [(b"", HEADER)], b""
    for name, values in sorted(variables.items()):
        pairs.append((name.encode(), entry(DTYPES[values.dtype], values.shape, len(data), values.nbytes)))
        data += values.tobytes()
    return pairs, data


PAIRS, DATA = checkpoint(VARIABLES)
INDEX = table(PAIRS)


@pytest.mark.parametrize("per_block", [1, 2, 3, 100])
def test_float_variables_are_read_and_others_are_skipped(per_block: int) -> None:
    variables = read_checkpoint(table(PAIRS, per_block), DATA)
    assert variables.keys() == VARIABLES.keys() - {"global_step"}
    for name, values in variables.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, VARIABLES[name], strict=True)


def test_the_table_of_the_tests_shares_prefixes_and_omits_zeros() -> None:
    # What the tests here rest on: without these, half of the reader would go untested.
    assert INDEX.count(b"batch_normalization/") < 2 + len(PAIRS) // 3
    assert (
        dict(PAIRS)[b"batch_normalization/beta"]
        == message((1, 1), (2, message((2, message((1, 3))))), (5, 12)) + CRC32C
    )


def test_an_entry_without_a_shape_is_a_scalar() -> None:
    pairs = [(b"", HEADER), (b"power", message((1, FLOAT32), (5, 4)))]
    assert read_checkpoint(table(pairs), np.float32(0.5).tobytes())["power"] == np.array(0.5)


def test_a_truncated_index_is_refused() -> None:
    for length in range(len(INDEX)):
        with pytest.raises(ModelError, match="not a TensorFlow checkpoint that can be read: "):
            read_checkpoint(INDEX[:length], DATA)


def test_an_index_without_its_beginning_or_middle_is_refused() -> None:
    for length in range(1, len(INDEX)):
        with pytest.raises(ModelError):
            read_checkpoint(INDEX[length:], DATA)
    footer = len(INDEX) - 48
    for length in range(footer - 4):  # the 4 bytes before the footer are a checksum, not looked at
        with pytest.raises(ModelError):
            read_checkpoint(INDEX[:length] + INDEX[footer:], DATA)


def test_truncated_data_names_the_variable_and_both_lengths() -> None:
    for length in range(len(DATA)):
        with pytest.raises(ModelError, match=rf"data file is too short for \S+: {length} bytes of \d+"):
            read_checkpoint(INDEX, DATA[:length])


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x7F, 0x80, 0xFF])
def test_an_index_with_a_changed_byte_is_read_or_refused(byte: int) -> None:
    refused = 0
    for place in range(len(INDEX)):
        try:
            read_checkpoint(INDEX[:place] + bytes([byte]) + INDEX[place + 1 :], DATA)
        except ModelError:
            refused += 1
    assert refused > 0


def one_variable(value: bytes) -> bytes:
    return table([(b"", HEADER), (b"dense/bias", value)])


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        (b"", "the index has 0 bytes, fewer than a footer"),
        (INDEX[:-1] + b"\0", "does not end with a table's magic number"),
        (b"\x80" * 40 + MAGIC, "a number has more than 64 bits"),
        (table(PAIRS, compression=b"\1"), "a block is compressed"),
        (b"\xff" * 4 + b"\0crc4" + b"\0\0\0\4".ljust(40, b"\0") + MAGIC, "smaller than its list of restarts"),
        (table([]), "the table has no header"),
        (table(PAIRS[1:]), "the table has no header"),
        (table([(b"", HEADER), (b"\xff", entry(FLOAT32, (), 0, 4))]), "can't decode byte"),
        (one_variable(entry(FLOAT32, (3,), 0, 8)), r"dense/bias has 8 bytes for the shape \[3\]"),
        (one_variable(entry(FLOAT32, (2**64 - 1,), 0, 4)), "dense/bias has 4 bytes for the shape"),
        (one_variable(entry(FLOAT32, (2,), 2**63, 8)), "too short for dense/bias"),
        (one_variable(b"\x09" + bytes(8)), "a field has the wire type 1"),
        (one_variable(b"\x12\x7f"), "it is truncated"),
        (one_variable(message((1, FLOAT32), (2, 3), (5, 4))), "expected bytes, found a number"),
        (one_variable(message((1, FLOAT32), (5, b"four"))), "expected a number, found bytes"),
    ],
)
def test_a_malformed_index_is_refused_with_the_reason(index: bytes, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        read_checkpoint(index, DATA)
