"""Reading a TensorFlow 1 checkpoint without TensorFlow.

A checkpoint is two files. `.index` is a LevelDB table of sorted keys: from the name of a variable to a small protocol
buffer (`BundleEntryProto`) with its type, shape and place. `.data-00000-of-00001` holds the values, one after the
other, little-endian. The formats are described in LevelDB's doc/table_format.md and TensorFlow's tensor_bundle.proto.
"""

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from musictag.errors import ModelError

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
FLOAT32 = 1
"""`DT_FLOAT` of TensorFlow's types.proto."""
# Fields of BundleEntryProto, and of the TensorShapeProto and its Dim within.
DTYPE, SHAPE, OFFSET, SIZE = 1, 2, 4, 5
SHAPE_DIM, DIM_SIZE = 2, 1

Fields = dict[int, list[int | bytes]]


def read_checkpoint(index: bytes, data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """The float32 variables of a checkpoint by name, those of other types left out.

    Args:
        index: content of the `.index` file, uncompressed blocks.
        data: content of its only `.data` file.

    Raises:
        ModelError: the bytes are not what they should be.
    """
    try:
        entries = {key.decode(): _fields(value) for key, value in _table(index)}
        del entries[""]  # the header
        return {name: _variable(entry, data) for name, entry in entries.items() if entry.get(DTYPE) == [FLOAT32]}
    except (IndexError, KeyError, ValueError, TypeError, struct.error) as error:
        raise ModelError(f"not a TensorFlow checkpoint that can be read: {type(error).__name__} {error}") from error


def _variable(entry: Fields, data: bytes) -> npt.NDArray[np.float32]:
    (shape,) = entry.get(SHAPE, [b""])
    dims = [_fields(_bytes(dim)) for dim in _fields(_bytes(shape)).get(SHAPE_DIM, [])]
    (offset,), (size,) = entry.get(OFFSET, [0]), entry[SIZE]
    values = np.frombuffer(data[_int(offset) : _int(offset) + _int(size)], "<f4")
    return values.reshape([_int(dim[DIM_SIZE][0]) for dim in dims])


def _table(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table, in order."""
    footer = index[-FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise ValueError("the table's magic number is not there")
    _, place = _varint(footer, 0)  # the handle of the meta index: offset and size
    _, place = _varint(footer, place)
    handle = footer[place:]  # the handle of the index block
    for _, block in _block(index, handle):
        yield from _block(index, block)


def _block(index: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block; each key repeats the beginning of the one before it."""
    offset, place = _varint(handle, 0)
    size, _ = _varint(handle, place)
    block, compression = index[offset : offset + size], index[offset + size]
    if compression:
        raise ValueError("a block is compressed")
    (n_restarts,) = struct.unpack("<I", block[-4:])
    end, place, key = len(block) - 4 - 4 * n_restarts, 0, b""
    while place < end:
        shared, place = _varint(block, place)
        unshared, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + unshared]
        place += unshared
        yield key, block[place : place + length]
        place += length


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
                value, place = message[place : place + length], place + length
            case 5:
                value, place = message[place : place + 4], place + 4
            case wire_type:
                raise ValueError(f"a field has the wire type {wire_type}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, least significant first, and the place after it."""
    number = shift = 0
    while True:
        byte = data[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return number, place


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("a number is needed where bytes stand")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("bytes are needed where a number stands")
    return value
