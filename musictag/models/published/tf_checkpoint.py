"""Reading a TensorFlow 1 checkpoint without TensorFlow.

A checkpoint is two files. `.index` is a LevelDB table of sorted keys: from the name of a variable to a small protocol
buffer (`BundleEntryProto`) with its type, shape and place. `.data-00000-of-00001` holds the values, one after the
other, little-endian. The formats are described in LevelDB's doc/table_format.md and TensorFlow's tensor_bundle.proto.
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
# Fields of BundleEntryProto, and of the TensorShapeProto and its Dim within; one that is 0 is not written.
DTYPE, SHAPE, OFFSET, SIZE = 1, 2, 4, 5
SHAPE_DIM, DIM_SIZE = 2, 1

Fields = dict[int, list[int | bytes]]


def read_checkpoint(index: bytes, data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """The float32 variables of a checkpoint by name, those of other types left out.

    Args:
        index: content of the `.index` file, uncompressed blocks.
        data: content of its only `.data` file.

    Raises:
        ModelError: the bytes are not what they should be. The checksums within are not looked at.
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
    """Keys and values of a LevelDB table, in order."""
    footer = index[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES:
        raise ValueError(f"the index has {len(index)} bytes, fewer than a footer")
    if struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise ValueError("the index does not end with a table's magic number")
    _, place = _varint(footer, 0)  # the handle of the meta index: offset and size
    _, place = _varint(footer, place)
    handle = footer[place:]  # the handle of the index block
    for _, block in _block(index, handle):
        yield from _block(index, block)


def _block(index: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block; each key repeats the beginning of the one before it."""
    offset, place = _varint(handle, 0)
    size, _ = _varint(handle, place)
    block, place = _take(index, offset, size)
    compression, _ = _take(index, place, 1)
    if compression != b"\0":
        raise ValueError("a block is compressed")
    if size < 4 or (end := size - 4 - 4 * struct.unpack("<I", block[-4:])[0]) < 0:
        raise ValueError("a block is smaller than its list of restarts")
    entries, place, key = block[:end], 0, b""
    while place < end:
        shared, place = _varint(entries, place)
        unshared, place = _varint(entries, place)
        length, place = _varint(entries, place)
        own, place = _take(entries, place, unshared)
        value, place = _take(entries, place, length)
        key = key[:shared] + own
        yield key, value


def _fields(message: bytes) -> Fields:
    """The fields of a protocol buffer by number: numbers of varints, bytes of the rest."""
    fields: Fields = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        value: int | bytes
        match tag & 7:
            case 0:
                value, place = _varint(message, place)
            case 2:
                length, place = _varint(message, place)
                value, place = _take(message, place, length)
            case 5:
                value, place = _take(message, place, 4)
            case wire_type:
                raise ValueError(f"a field has the wire type {wire_type}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, least significant first, and the place after it."""
    number = 0
    for shift in range(0, VARINT_BITS, 7):
        (byte,), place = _take(data, place, 1)
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError(f"a number has more than {VARINT_BITS} bits")


def _take(data: bytes, place: int, length: int) -> tuple[bytes, int]:
    """So many bytes from a place, and the place after them."""
    if place + length > len(data):
        raise ValueError("it is cut off")
    return data[place : place + length], place + length


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("a number is needed where bytes stand")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("bytes are needed where a number stands")
    return value
