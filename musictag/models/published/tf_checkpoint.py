"""Read TensorFlow 1 checkpoints without TensorFlow.

A checkpoint has two files. `.index` is a LevelDB table with sorted keys, which maps the name of each variable to a
protocol buffer (`BundleEntryProto`) with its type, shape and offset. `.data-00000-of-00001` holds the concatenated
values, little-endian. LevelDB's doc/table_format.md and TensorFlow's tensor_bundle.proto describe the formats.
"""

import math
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from musictag.errors import ModelError

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
FLOAT32 = 1
"""`DT_FLOAT` of TensorFlow's types.proto."""
VARINT_BITS = 64
# Field numbers of BundleEntryProto, and of its TensorShapeProto with Dim. A field whose value is 0 is not written.
DTYPE, SHAPE, OFFSET, SIZE = 1, 2, 4, 5
SHAPE_DIM, DIM_SIZE = 2, 1

Fields = dict[int, list[int | bytes]]


def read_checkpoint(index: bytes, data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Return the float32 variables of a checkpoint by name; variables of other types are skipped.

    Args:
        index: content of the `.index` file, with uncompressed blocks.
        data: content of the only `.data` file.

    Raises:
        ModelError: the content is malformed. The checksums in it are not verified.
    """
    try:
        entries = {key.decode(): _fields(value) for key, value in _table(index)}
        if entries.pop("", None) is None:
            raise ValueError("the table has no header")
        return {name: _variable(name, entry, data) for name, entry in entries.items() if entry.get(DTYPE) == [FLOAT32]}
    except ValueError as error:
        raise ModelError(f"not a TensorFlow checkpoint that can be read: {error}") from error


def _variable(name: str, entry: Fields, data: bytes) -> npt.NDArray[np.float32]:
    dims = [_fields(_bytes(dim)) for dim in _fields(_bytes(entry.get(SHAPE, [b""])[0])).get(SHAPE_DIM, [])]
    shape = [_int(dim.get(DIM_SIZE, [0])[0]) for dim in dims]
    offset, size = (_int(entry.get(field, [0])[0]) for field in (OFFSET, SIZE))
    if size != 4 * math.prod(shape):
        raise ValueError(f"{name} has {size} bytes for the shape {shape}")
    if offset + size > len(data):
        raise ValueError(f"the data file is too short for {name}: {len(data)} bytes of {offset + size}")
    return np.frombuffer(data[offset : offset + size], "<f4").reshape(shape)


def _table(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a LevelDB table, in order."""
    footer = index[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES:
        raise ValueError(f"the index has {len(index)} bytes, fewer than a footer")
    if struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise ValueError("the index does not end with a table's magic number")
    _, position = _varint(footer, 0)  # the handle of the meta index: offset and size
    _, position = _varint(footer, position)
    handle = footer[position:]  # the handle of the index block
    for _, block in _block(index, handle):
        yield from _block(index, block)


def _block(index: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of one block; a key is stored without the prefix that it shares with the one before."""
    offset, position = _varint(handle, 0)
    size, _ = _varint(handle, position)
    block, position = _take(index, offset, size)
    compression, _ = _take(index, position, 1)
    if compression != b"\0":
        raise ValueError("a block is compressed")
    if size < 4 or (end := size - 4 - 4 * struct.unpack("<I", block[-4:])[0]) < 0:
        raise ValueError("a block is smaller than its list of restarts")
    entries, position, key = block[:end], 0, b""
    while position < end:
        shared, position = _varint(entries, position)
        unshared, position = _varint(entries, position)
        length, position = _varint(entries, position)
        suffix, position = _take(entries, position, unshared)
        value, position = _take(entries, position, length)
        key = key[:shared] + suffix
        yield key, value


def _fields(message: bytes) -> Fields:
    """Return the fields of a protocol buffer by number: integers for varints, bytes for the other types."""
    fields: Fields = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        value: int | bytes
        match tag & 7:
            case 0:
                value, position = _varint(message, position)
            case 2:
                length, position = _varint(message, position)
                value, position = _take(message, position, length)
            case 5:
                value, position = _take(message, position, 4)
            case wire_type:
                raise ValueError(f"a field has the wire type {wire_type}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a varint (seven bits a byte, least significant first); return it and the offset after it."""
    number = 0
    for shift in range(0, VARINT_BITS, 7):
        (byte,), position = _take(data, position, 1)
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError(f"a number has more than {VARINT_BITS} bits")


def _take(data: bytes, position: int, length: int) -> tuple[bytes, int]:
    """Return `length` bytes from an offset, and the offset after them."""
    if position + length > len(data):
        raise ValueError("it is truncated")
    return data[position : position + length], position + length


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("expected a number, found bytes")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("expected bytes, found a number")
    return value
