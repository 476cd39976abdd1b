"""Check that a file is as long as its container declares, because most decoders read a truncated file without an error.

Some files declare no size: MP3 without a Xing header, AAC in ADTS frames, and WAV or AIFF with a placeholder size
(`chunks.UNKNOWN_SIZES`). Their truncation cannot be detected; they are read as shorter tracks. Files that declare a
number of samples instead of bytes (FLAC, MP3 with a Xing header, WMA) are checked by `reader` while they are decoded,
and Ogg files by `ogg_pages`.
"""

import itertools
import mmap
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from musictag.audio import flac, flac_parts, matroska_parts, wavpack_parts
from musictag.audio.chunks import (
    EBML_ID,
    FRAGMENT,
    INDEX,
    METADATA,
    SAMPLES,
    SEGMENT,
    Chunk,
    boxes,
    boxes_between,
    chunks_of,
    first_fragment,
    iff_chunks,
    matroska_elements,
)
from musictag.audio.parts import mapped
from musictag.audio.trailing import TOLERANCE_BYTES, after_tag, after_tags, other_file, trailing_bytes
from musictag.errors import AudioCorruptError, AudioDamagedError, AudioTruncatedError

# Chunks that are a whole file: a second one is a file that was appended.
FILE_CHUNKS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"caff", b".snd")
# The first bytes of an ASF (WMA) file, and those of its part that declares the length of the file.
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# MP4 boxes that contain `stsz` or `trun`, which declare numbers of samples, or each other.
PARENT_BOXES = (INDEX, b"trak", b"mdia", b"minf", b"stbl", FRAGMENT, b"traf")


def check_complete(path: Path, name: str) -> None:
    """Raise an error if a local file is shorter than its container declares, or holds bytes after the declared audio.

    `AudioTruncatedError` says what is missing, `AudioCorruptError` how many bytes follow that are no known tag or
    padding: several files that were joined, or a size that the recorder did not update. `AudioDamagedError` says where
    the elements of a Matroska file do not follow each other.

    The sizes in WAV, RF64, AIFF, AU, CAF, MP4, Matroska, WebM, WMA, FLAC, WavPack and TTA files are checked. Other
    files pass, unless FFmpeg may take them for MP4 files that declare more samples than the file has bytes.

    Args:
        path: the file; it must not be empty.
        name: the file's name in the error message.
    """
    with mapped(path) as data:
        trailing, begin = None, after_tags(data, 0)
        match data[:4], data[4:8]:
            case _ if chunks := chunks_of(data):
                missing, trailing = _check_chunks(*chunks, data)
            case _ if data[:4] == EBML_ID:
                missing, trailing = _check_chunks(matroska_elements(data), SEGMENT, data)
                if not missing and (place := matroska_parts.first_damage(data)) is not None:
                    raise AudioDamagedError(f"{name}: damaged: no element begins at byte {place:,}")
            case _ if data[:16] == ASF_HEADER:
                n_bytes, _ = _asf_lengths(data)
                is_cut = n_bytes > len(data) + TOLERANCE_BYTES
                missing = f"its header declares {n_bytes:,} bytes, the file has {len(data):,}" if is_cut else None
                second = data.find(ASF_HEADER, len(ASF_HEADER))
                trailing = trailing_bytes(data, second) if second > 0 else other_file(data, n_bytes or len(data))
            case (_, b"ftyp"):
                found = list(itertools.takewhile(lambda box: after_tag(data, box.begin) is None, boxes(data)))
                missing = _truncated_box(found, len(data))
                _check_sample_counts(data, name)
                seconds = [box.begin for box in found[1:] if box.name == b"ftyp"]
                trailing = trailing_bytes(data, seconds[0]) if seconds else None
            case _ if data[begin : begin + 4] == b"fLaC" and flac.stream_info(data):
                missing, end = None, flac.second_file(data) or flac_parts.end_of_last_frame(data)
                trailing = trailing_bytes(data, end) if end else None
            case _ if data[begin : begin + 4] == b"wvpk":
                missing, end = None, wavpack_parts.end_of_file(data, begin)
                trailing = trailing_bytes(data, end) if end else None
            case _ if data[begin : begin + 4] == b"TTA1":
                missing, trailing = None, trailing_bytes(data, _end_of_tta(data, begin))
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
    chunks = chunks_of(data)
    audio = next((chunk for chunk in chunks[0] if chunk.name == chunks[1]), None) if chunks else None
    if audio is None or audio.end is None or audio.end <= len(data):
        return None
    return Fraction(max(0, len(data) - audio.content), audio.end - audio.content)


def asf_seconds(data: mmap.mmap) -> Fraction | None:
    """Return the length of the sound of an ASF (WMA) file according to its header, s; None for other files."""
    return _asf_lengths(data)[1] if data[:16] == ASF_HEADER else None


def _end_of_tta(data: mmap.mmap, begin: int) -> int:
    """Return the first byte after the last frame of the TTA file that begins at a byte, by the index of its frames."""
    if len(data) < begin + 22:
        return len(data)
    sample_rate, n_samples = map(int, struct.unpack_from("<10xII", data, begin))
    n_frames = -(-n_samples // max(1, sample_rate * 256 // 245))
    index, index_end = begin + 22, begin + 22 + 4 * n_frames
    if index_end > len(data):
        return len(data)
    # The header and the index each end with a checksum.
    frame_bytes: tuple[int, ...] = struct.unpack(f"<{n_frames}I", data[index:index_end])
    return index_end + 4 + sum(frame_bytes)


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
        audio = next((chunk for chunk in iff_chunks(data, "<") if chunk.name == b"data"), None)
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
        for box in boxes_between(data, begin, end):
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
