"""Check that a file is as long as its container declares, because most decoders read a truncated file without an error.

Some files declare no size: MP3 without a Xing header, AAC in ADTS frames, and WAV or AIFF with a placeholder size
(`UNKNOWN_SIZES`). Their truncation cannot be detected; they are read as shorter tracks. Files that declare a number of
samples instead of bytes (FLAC, MP3 with a Xing header, WMA) are checked by `reader` while they are decoded,
and Ogg files by `ogg_pages`.
"""

import dataclasses
import itertools
import mmap
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from musictag.audio import flac
from musictag.audio.parts import mapped
from musictag.audio.trailing import TOLERANCE_BYTES, after_tag, trailing_bytes
from musictag.errors import AudioCorruptError, AudioTruncatedError

# Placeholders of SoX and FFmpeg, which do not know the size when they write to a pipe.
UNKNOWN_SIZES = (0x7FFF_F000, 0xFFFF_FFFF)
# Chunks that are a whole file: a second one is a file that was appended.
FILE_CHUNKS = (b"RIFF", b"RF64", b"FORM", b"caff", b".snd")
# Chunks without audio, which may be cut off at the end of a file.
METADATA = frozenset(
    b"LIST|id3 |ID3 |bext|iXML|axml|aXML|_PMX|cue |smpl|inst|fact|PEAK|JUNK|junk|PAD |FLLR|afsp|AFAn|acid|strc|umid|"
    b"minf|elm1|regn|DGDA|cart|chna|levl|plst|DISP|CSET|NAME|AUTH|(c) |ANNO|COMT|MARK|INST|MIDI|AESD|APPL|FVER|CHAN|"
    b"uuid|info".split(b"|")
)
# MP4 boxes.
INDEX, FRAGMENT, SAMPLES = b"moov", b"moof", b"mdat"
# The Matroska element that holds everything but the header of the file.
SEGMENT, SEGMENT_ID = b"Segment", b"\x18\x53\x80\x67"
# The first bytes of an ASF (WMA) file, and those of its part that declares the length of the file.
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# MP4 boxes that contain `stsz` or `trun`, which declare numbers of samples, or each other.
PARENT_BOXES = (INDEX, b"trak", b"mdia", b"minf", b"stbl", FRAGMENT, b"traf")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A chunk of a RIFF, IFF or CAF file, a box of an MP4 file or an element of Matroska. Positions are in bytes."""

    name: bytes
    begin: int
    """The first byte of its header."""
    content: int
    """The first byte after its header."""
    end: int | None
    """The first byte after it; None if its size is not known."""


def check_complete(path: Path, name: str) -> None:
    """Raise an error if a local file is shorter than its container declares, or holds bytes after the declared audio.

    `AudioTruncatedError` says what is missing, `AudioCorruptError` how many bytes follow that are no known tag or
    padding: several files that were joined, or a size that the recorder did not update.

    The sizes in WAV, RF64, AIFF, AU, CAF, MP4, Matroska, WebM and WMA files are checked. Other files pass, unless
    FFmpeg may take them for MP4 files that declare more samples than the file has bytes.

    Args:
        path: the file; it must not be empty.
        name: the file's name in the error message.
    """
    with mapped(path) as data:
        trailing = None
        match data[:4], data[4:8]:
            case _ if chunks := _chunks(data):
                missing, trailing = _check_chunks(*chunks, data)
            case (b"\x1a\x45\xdf\xa3", _):
                missing, trailing = _check_chunks(_matroska_elements(data), SEGMENT, data)
            case _ if data[:16] == ASF_HEADER:
                n_bytes, _ = _asf_lengths(data)
                is_cut = n_bytes > len(data) + TOLERANCE_BYTES
                missing = f"its header declares {n_bytes:,} bytes, the file has {len(data):,}" if is_cut else None
                second = data.find(ASF_HEADER, len(ASF_HEADER))
                trailing = trailing_bytes(data, second) if second > 0 else None
            case (_, b"ftyp"):
                found = list(itertools.takewhile(lambda box: after_tag(data, box.begin) is None, boxes(data)))
                missing = _truncated_box(found, len(data))
                _check_sample_counts(data, name)
                seconds = [box.begin for box in found[1:] if box.name == b"ftyp"]
                trailing = trailing_bytes(data, seconds[0]) if seconds else None
            case (b"fLaC", _) if flac.stream_info(data):
                missing, second = None, flac.second_file(data) or -1
                trailing = trailing_bytes(data, second) if second > 0 else None
            case _:
                missing = None
                _check_sample_counts(data, name)  # FFmpeg reads MP4 files without an `ftyp` box
    if missing:
        raise AudioTruncatedError(f"{name}: truncated: {missing}")
    if trailing:
        raise AudioCorruptError(f"{name}: {trailing}")


def present_share(data: mmap.mmap) -> Fraction | None:
    """Return which share of its bytes a truncated WAV, AIFF, AU, CAF or WMA file holds; None for other files."""
    if data[:16] == ASF_HEADER:
        n_bytes, _ = _asf_lengths(data)
        return Fraction(len(data), n_bytes) if n_bytes > len(data) else None
    chunks = _chunks(data)
    audio = next((chunk for chunk in chunks[0] if chunk.name == chunks[1]), None) if chunks else None
    if audio is None or audio.end is None or audio.end <= len(data):
        return None
    return Fraction(max(0, len(data) - audio.content), audio.end - audio.content)


def asf_seconds(data: mmap.mmap) -> Fraction | None:
    """Return the length of the sound of an ASF (WMA) file according to its header, s; None for other files."""
    return _asf_lengths(data)[1] if data[:16] == ASF_HEADER else None


def _asf_lengths(data: mmap.mmap) -> tuple[int, Fraction | None]:
    """Return bytes and seconds that the header of an ASF file declares; 0 and None if it declares nothing."""
    begin = data.find(ASF_PROPERTIES, 0, 1 << 16)
    if begin < 0 or begin + 92 > len(data):
        return 0, None
    n_bytes, play_time, preroll_ms, flags = struct.unpack_from("<40xQ16xQ8xQI", data, begin)
    if flags & 1:  # a broadcast
        return 0, None
    seconds = Fraction(play_time, 10_000_000) - Fraction(preroll_ms, 1_000)
    return n_bytes, seconds if seconds > 0 else None


def first_fragment(data: mmap.mmap) -> Chunk | None:
    """Return the first fragment of a fragmented MP4 file; None for other files."""
    return next((box for box in boxes(data) if box.name == FRAGMENT), None)


def boxes(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the boxes of the highest level of an MP4 file; none of other files."""
    return _boxes(data, 0, len(data)) if data[4:8] == b"ftyp" else iter(())


def last_fragment_s(path: Path) -> float:
    """Return when the last fragment of a fragmented MP4 file with one stream begins, s; 0 for other files.

    FFmpeg stops at the first damaged fragment without an error.
    """
    with mapped(path) as data:
        first = first_fragment(data)
        if first is None or data[: first.begin].count(b"trak") != 1:
            return 0.0
        header, time = data.find(b"mdhd", 0, first.begin), data.rfind(b"tfdt")
        if min(header, time) < 0 or max(header + 28, time + 16) > len(data):
            return 0.0
        # Version 1 of both boxes has times of 64 bits.
        time_scale = struct.unpack_from(">24xI" if data[header + 4] == 1 else ">16xI", data, header)[0]
        ticks = struct.unpack_from(">8xQ" if data[time + 4] == 1 else ">8xI", data, time)[0]
        return ticks / time_scale if time_scale else 0.0


def _chunks(data: mmap.mmap) -> tuple[Iterator[Chunk], bytes] | None:
    """Return the chunks of a WAV, AIFF, AU or CAF file, and the name of the one with the samples; None for others."""
    match data[:4], data[8:12]:
        case (b"RIFF" | b"RF64", b"WAVE"):
            return _iff_chunks(data, "<"), b"data"
        case (b"FORM", b"AIFF" | b"AIFC"):
            return _iff_chunks(data, ">"), b"SSND"
        case (b"caff", _):
            return _caf_chunks(data), b"data"
        case (b".snd", _):
            return _au_chunk(data), b".snd"
    return None


def _check_chunks(chunks: Iterator[Chunk], name: bytes, data: mmap.mmap) -> tuple[str | None, str | None]:
    """Return two messages or None: how the first chunk named `name` is truncated, and what follows that is no chunk."""
    audio = next((chunk for chunk in chunks if chunk.name == name), None)
    if audio is None or audio.end is None:
        return None, None
    if audio.end > len(data) + TOLERANCE_BYTES:
        return _ends_beyond(audio, len(data)), None
    if name == b"data" and audio.end == audio.content and not _is_chunk(data, audio.content):
        return None, None  # see `extends_to_the_end`
    end = audio.end
    for chunk in chunks:
        is_cut = chunk.end is None or chunk.end > len(data) + TOLERANCE_BYTES
        if chunk.name in FILE_CHUNKS or not _is_chunk(data, chunk.begin) or (is_cut and chunk.name not in METADATA):
            break
        end = min(chunk.end or len(data), len(data))
    return None, trailing_bytes(data, end)


def extends_to_the_end(path: Path) -> bool:
    """Return whether a WAV file declares no samples, although bytes follow that are no chunk.

    A recorder that crashed did not write the size: the samples extend to the end of the file.
    """
    with mapped(path) as data:
        if data[:4] not in (b"RIFF", b"RF64"):
            return False
        audio = next((chunk for chunk in _iff_chunks(data, "<") if chunk.name == b"data"), None)
        if audio is None or audio.end != audio.content:
            return False
        return len(data) - audio.content > TOLERANCE_BYTES and not _is_chunk(data, audio.content)


def _is_chunk(data: mmap.mmap, begin: int) -> bool:
    """Return whether a name of four printable characters begins at a byte."""
    name = data[begin : begin + 4]
    return len(name) == 4 and name.isascii() and name.decode().isprintable()


def _truncated_box(found: list[Chunk], n_bytes: int) -> str | None:
    """Return an error message if a box of an MP4 file is truncated or the index is missing, else None."""
    for box in found:
        is_metadata = box.name not in (INDEX, FRAGMENT, SAMPLES) and box.begin > n_bytes - TOLERANCE_BYTES
        if box.end and box.end > n_bytes and not is_metadata:
            return _ends_beyond(box, n_bytes)
    if not any(box.name in (INDEX, FRAGMENT) for box in found):
        return "the index (moov box) is missing"
    return None


def _check_sample_counts(data: mmap.mmap, name: str) -> None:
    """Raise `AudioCorruptError` if an MP4 file declares more samples than it has bytes.

    FFmpeg allocates memory for all declared samples: a file of a few kB could take gigabytes.
    """
    ranges = [(0, len(data))]
    while ranges:
        begin, end = ranges.pop()
        for box in _boxes(data, begin, end):
            if box.name in PARENT_BOXES:
                ranges.append((box.content, min(box.end or end, end)))
            if box.name in (b"stsz", b"trun") and box.content + 12 <= len(data):
                # After 4 bytes of version and flags: stsz has the size and the number of samples, trun the number.
                first, second = struct.unpack_from(">4xII", data, box.content)
                n_bytes = max(first, 1) * second if box.name == b"stsz" else first
                if n_bytes > len(data):
                    raise AudioCorruptError(
                        f"{name}: the index declares {second if box.name == b'stsz' else first:,} samples of at least "
                        f"{n_bytes:,} bytes, the file has {len(data):,}"
                    )


def _ends_beyond(chunk: Chunk, n_bytes: int) -> str:
    if not chunk.name.isascii() or not chunk.name.decode().isprintable():
        return f"the bytes from {chunk.begin:,} on are no part of the file that is known"
    return f"its part {chunk.name.decode()!r} ends at byte {chunk.end:,}, the file at byte {n_bytes:,}"


def _iff_chunks(data: mmap.mmap, byte_order: str) -> Iterator[Chunk]:
    """Yield the chunks of a RIFF (byte order "<") or IFF (">") file; chunks begin at even positions."""
    position, long_size = 12, None
    while position + 8 <= len(data):
        name, size = struct.unpack_from(f"{byte_order}4sI", data, position)
        if name == b"ds64" and position + 24 <= len(data):  # RF64: sizes of 64 bits
            long_size = struct.unpack_from("<16xQ", data, position)[0]
        if name == b"data" and size == 0xFFFF_FFFF and long_size:
            size = long_size
        yield Chunk(name, position, position + 8, None if size in UNKNOWN_SIZES else position + 8 + size)
        position += 8 + size
        # Some writers forget the byte after a chunk of odd size.
        if size % 2 and data[position : position + 4] not in METADATA:
            position += 1


def _caf_chunks(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the chunks of a Core Audio file; a chunk of negative size, whose size is not known, is the last one."""
    position = 8
    while position + 12 <= len(data):
        name, size = struct.unpack_from(">4sq", data, position)
        yield Chunk(name, position, position + 12, None if size < 0 else position + 12 + size)
        position += 12 + (size if size >= 0 else len(data))


def _matroska_elements(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the elements of the highest level of a Matroska or WebM file (RFC 8794)."""
    position = 0
    while position + 12 <= len(data):
        id_bytes = 9 - data[position].bit_length()  # the position of the first bit that is set tells the length
        size_bytes = 9 - data[position + id_bytes].bit_length() if id_bytes <= 4 else 9
        if size_bytes > 8:
            return
        begin = position + id_bytes
        content = begin + size_bytes
        n_bits = 7 * size_bytes
        size = int.from_bytes(data[begin:content]) & ((1 << n_bits) - 1)
        is_known = size != (1 << n_bits) - 1  # all bits are set in a live stream
        name = SEGMENT if data[position:begin] == SEGMENT_ID else b"\0element"
        yield Chunk(name, position, content, content + size if is_known else None)
        position = content + size if is_known else len(data)


def _au_chunk(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the only chunk of a Sun or NeXT file."""
    if len(data) >= 12:
        begin, size = struct.unpack_from(">4xII", data)
        yield Chunk(b".snd", 0, begin, None if size in UNKNOWN_SIZES else begin + size)


def _boxes(data: mmap.mmap, begin: int, end: int) -> Iterator[Chunk]:
    """Yield the boxes of one level of an MP4 file, from byte `begin` to `end`."""
    position = begin
    while position + 8 <= end:
        header_bytes = 8
        size, name = struct.unpack_from(">I4s", data, position)
        if size == 1 and position + 16 <= len(data):
            header_bytes = 16
            size = struct.unpack_from(">8xQ", data, position)[0]
        if size == 0:  # the box extends to the end of its parent
            size = end - position
        after = position + max(size, header_bytes)  # a smaller size would be wrong, and would never advance
        yield Chunk(name, position, position + header_bytes, after)
        position = after
