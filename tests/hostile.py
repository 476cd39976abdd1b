"""Files as catalogs hold them by accident or malice, made anew by each run, and what must come of each.

`FILES` maps a file's name to what makes its bytes and to its outcome: a duration in s for what plays, or the errors
that are right for it. Names end as the audio files of a folder do, so that a folder of them is a catalog.
"""

import functools
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from encoding import BY_FFMPEG, RATE, SECONDS, by_ffmpeg, by_soundfile, encoded, sound
from musictag.errors import AudioCorruptError, AudioEmptyError, AudioError, AudioTruncatedError, AudioUnsupportedError

Make = Callable[[], bytes]
Outcome = float | tuple[type[AudioError], ...]

CORRUPT, EMPTY, TRUNCATED, UNSUPPORTED = (
    (error,) for error in (AudioCorruptError, AudioEmptyError, AudioTruncatedError, AudioUnsupportedError)
)
# FLAC and others that number their samples: decoders say that they lost their way, or how far they came.
BROKEN = TRUNCATED + CORRUPT
# A header that is not even one: no decoder may know it, or one may try.
NO_HEADER = UNSUPPORTED + CORRUPT
ONE = functools.partial(encoded, seconds=1.0)
LONG = functools.partial(encoded, seconds=9.0, channels=1)
BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def cut(name: str, share: float) -> bytes:
    """The beginning of a sound."""
    return encoded(name)[: int(len(encoded(name)) * share)]


def zero_tail(name: str) -> bytes:
    """What a download leaves that reserved its space and broke off."""
    return cut(name, 0.6) + bytes(len(encoded(name)) - len(cut(name, 0.6)))


def garbage_within(name: str) -> bytes:
    """A sound with a tenth of its bytes overwritten in the middle."""
    data = encoded(name)
    middle, length = len(data) // 2, len(data) // 10
    return data[:middle] + np.random.default_rng(1).bytes(length) + data[middle + length :]


def patched(name: str, marker: bytes, offset: int, value: bytes) -> bytes:
    """A sound with `value` written `offset` bytes behind the beginning of `marker`."""
    data = bytearray(encoded(name))
    begin = data.index(marker) + offset
    data[begin : begin + len(value)] = value
    return bytes(data)


def patched_ogg(name: str, marker: bytes, offset: int, value: bytes) -> bytes:
    """As `patched`, with the checksums that its pages then need for a decoder to look at them."""
    data, begin = bytearray(patched(name, marker, offset, value)), 0
    while begin < len(data):
        n_segments = data[begin + 26]
        end = begin + 27 + n_segments + sum(data[begin + 27 : begin + 27 + n_segments])
        data[begin + 22 : begin + 26] = bytes(4)
        data[begin + 22 : begin + 26] = struct.pack("<I", ogg_checksum(data[begin:end]))
        begin = end
    return bytes(data)


def ogg_checksum(page: bytes) -> int:
    """RFC 3533's checksum of a page: zlib's CRC with all bits in the other order, from 0 and not inverted."""
    mirrored = zlib.crc32(page.translate(BITS_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2)


@functools.cache
def wav(
    *, kind: int = 1, channels: int = 2, rate: int = RATE, bits: int = 16, align: int = 4, size: int | None = None,
    n_bytes: int = round(SECONDS * RATE) * 4,
) -> bytes:  # fmt: skip
    """A WAV file whose header says what it is told to."""
    samples = np.random.default_rng(0).integers(-3_000, 3_000, n_bytes // 2, np.int16).tobytes()
    size = len(samples) if size is None else size
    riff = struct.pack("<4sI4s", b"RIFF", min(36 + size, 0xFFFF_FFFF), b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, kind, channels, rate, rate * align & 0xFFFF_FFFF, align, bits)
    return riff + form + struct.pack("<4sI", b"data", size) + samples


def floats(value: float, container: str = "WAV", subtype: str = "FLOAT") -> bytes:
    """Floating-point samples, nearly all of one channel `value`."""
    samples = sound().astype(np.float64)
    samples[RATE // 10 :, 1] = value
    return by_soundfile(samples, RATE, container, subtype)


def rf64_of_a_terabyte() -> bytes:
    """An RF64 header that declares 2^40 bytes of samples."""
    return patched("rf64.wav", b"ds64", 16, struct.pack("<Q", 2**40))


def flac(total: int | None = None, offset: int = 0, value: bytes = b"") -> bytes:
    """A FLAC file with another number of samples in its header, or other bytes at an offset of it."""
    data = bytearray(encoded("plain.flac"))
    if total is not None:
        data[21:26] = ((data[21] & 0xF0) << 32 | total).to_bytes(5, "big")
    data[offset : offset + len(value)] = value
    return bytes(data)


def id3(n_bytes: int, declared: int | None = None) -> bytes:
    """An ID3v2.3 tag with a picture of `n_bytes`; `declared` is the size that its header tells instead."""
    picture = b"\0image/jpeg\0\3\0" + bytes(n_bytes)
    frame = struct.pack(">4sIH", b"APIC", len(picture), 0) + picture
    size = len(frame) if declared is None else declared
    return b"ID3\3\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + frame


def two_kinds_of_frames() -> bytes:
    """MP3 frames of nothing, of which the second makes mpg123 count otherwise than the first."""
    return b"".join(
        header + bytes(length) for header, length in ((b"\xff\xe3H", 285), (b"\xff\xe3H", 459), (b"\xff\xe5D", 863))
    )


def video() -> bytes:
    """An MP4 file whose one track is said to be video."""
    return encoded("plain.m4a").replace(b"soun", b"vide")


def without_index(name: str) -> bytes:
    """The fragments of an MP4 file without the box that says what they hold."""
    data = encoded(name)
    return data[: data.index(b"moov") - 4] + data[data.index(b"moof") - 4 :]


def image(kind: str) -> bytes:
    """A picture of noise."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def silence_before(name: str) -> bytes:
    """Ten seconds of next to no bytes before a sound: a length guessed from the bit rate would be wrong."""
    return by_ffmpeg(np.zeros((10 * RATE, 2), np.float32), RATE, *BY_FFMPEG[name]) + encoded(name)


WAVS: dict[str, tuple[Make, Outcome]] = {
    **{
        f"header-{'-'.join(f'{name}-{value}' for name, value in fields.items())}.wav": (
            functools.partial(wav, **fields),
            outcome,
        )
        for fields, outcome in (
            ({"size": 0}, EMPTY),
            ({"size": 1}, EMPTY),
            ({"size": 352_799}, SECONDS),
            ({"size": 352_801}, SECONDS),
            ({"size": 705_600}, TRUNCATED),
            ({"size": 0x7FFF_FFFF}, TRUNCATED),
            ({"size": 0x7FFF_F000}, SECONDS),  # SoX and FFmpeg when they write to a pipe: up to the end
            ({"size": 0xFFFF_FFFF}, SECONDS),
            ({"n_bytes": 0}, EMPTY),
            ({"n_bytes": 2}, EMPTY),
            ({"n_bytes": 0, "size": 352_800}, TRUNCATED),
            ({"rate": 0}, UNSUPPORTED),
            ({"rate": 1}, CORRUPT),
            ({"rate": 2**31 - 1}, CORRUPT),
            ({"rate": 2**32 - 1}, UNSUPPORTED),
            ({"channels": 0, "align": 0}, NO_HEADER),
            ({"channels": 1_000, "align": 2_000}, 176 / RATE),
            ({"channels": 65_535, "align": 65_534}, NO_HEADER),
            ({"bits": 0}, UNSUPPORTED),
            ({"bits": 65_535}, UNSUPPORTED),
            ({"kind": 0}, UNSUPPORTED),
            ({"kind": 0xFFFE}, UNSUPPORTED),
            ({"kind": 3, "bits": 32}, CORRUPT),  # integers that are called floats: some are no numbers
        )
    },
    "nan.wav": (lambda: floats(np.nan), CORRUPT),
    "infinity.wav": (lambda: floats(np.inf), CORRUPT),
    "infinity.aiff": (lambda: floats(-np.inf, "AIFF"), CORRUPT),
    "1e38.wav": (lambda: floats(1e38), CORRUPT),
    "1e300.wav": (lambda: floats(1e300, "WAV", "DOUBLE"), CORRUPT),
    "integers-as-floats.wav": (lambda: by_soundfile(sound() * 2**31, RATE, "WAV", "FLOAT"), SECONDS),
    "terabyte.wav": (rf64_of_a_terabyte, TRUNCATED),
}

# What the fuzzer found, and what it taught.
FOUND: dict[str, tuple[Make, Outcome]] = {
    "box-of-2e63.m4a": (lambda: encoded("plain.m4a") + struct.pack(">I4sQ", 1, b"free", 2**63 - 1), SECONDS),
    "box-before-of-2e63.m4a": (lambda: struct.pack(">I4sQ", 1, b"ftyp", 2**63 - 1) + bytes(5_000), TRUNCATED),
    "chunk-of-2e63.aiff": (lambda: b"caff\0\1\0\0" + struct.pack(">4sq", b"desc", 2**63 - 1) + bytes(500), NO_HEADER),
    "seeks-beyond-its-end.mp3": (lambda: bytes(2_400) + two_kinds_of_frames(), BROKEN),
}

HEADERS: dict[str, tuple[Make, Outcome]] = {
    "channels-0.aiff": (lambda: patched("plain.aiff", b"COMM", 8, bytes(2)), UNSUPPORTED),
    "channels-65535.aiff": (lambda: patched("plain.aiff", b"COMM", 8, b"\xff\xff"), NO_HEADER),
    "rate-0.aiff": (lambda: patched("plain.aiff", b"COMM", 16, bytes(10)), CORRUPT),
    "rate-2e31.aiff": (lambda: patched("plain.aiff", b"COMM", 16, b"\x40\x1d" + b"\xff" * 8), CORRUPT),
    "rate-1048575.flac": (lambda: flac(None, 18, b"\xff\xff\xf0"), CORRUPT),
    "unknown-length.flac": (lambda: flac(0), SECONDS),  # FLAC written to a pipe
    "declares-too-much.flac": (lambda: flac(2**36 - 1), BROKEN),
    "header-alone.flac": (lambda: encoded("plain.flac")[:42], BROKEN),
    "channels-0.ogg": (lambda: patched_ogg("vorbis.ogg", b"\x01vorbis", 11, b"\0"), NO_HEADER),
    "rate-0.ogg": (lambda: patched_ogg("vorbis.ogg", b"\x01vorbis", 12, bytes(4)), NO_HEADER),
    "rate-2e31.ogg": (lambda: patched_ogg("vorbis.ogg", b"\x01vorbis", 12, b"\xff\xff\xff\x7f"), CORRUPT),
    "channels-255.opus": (lambda: patched_ogg("plain.opus", b"OpusHead", 9, b"\xff"), NO_HEADER),
    "rate-0.opus": (lambda: patched_ogg("plain.opus", b"OpusHead", 12, bytes(4)), SECONDS),  # a remark: always 48 kHz
    "no-samples.m4a": (lambda: patched("plain.m4a", b"stsz", 8, bytes(8)), EMPTY),
    "index-of-wrong-places.m4a": (lambda: patched("plain.m4a", b"stco", 8, b"\xff" * 8), EMPTY + BROKEN),
    "video-alone.mp4": (video, UNSUPPORTED),
    "no-index.m4a": (lambda: without_index("fragmented.m4a"), UNSUPPORTED),
    "ftyp-alone.m4a": (lambda: encoded("plain.m4a")[:28], TRUNCATED),
    "id3-alone.mp3": (lambda: id3(1_000), UNSUPPORTED),
    "id3-too-small.mp3": (lambda: id3(100_000, declared=10) + encoded("plain.mp3"), CORRUPT),
    # The first frames are taken for the tag.
    "id3-too-large.mp3": (lambda: id3(1_000, declared=2_000) + encoded("plain.mp3"), SECONDS - 0.14),
    "id3-beyond-the-end.mp3": (lambda: id3(1_000, declared=2**28 - 1) + encoded("plain.mp3"), UNSUPPORTED),
    "many-id3.mp3": (lambda: 1_000 * id3(100) + encoded("plain.mp3"), SECONDS),
    "huge-cover.mp3": (lambda: id3(20_000_000) + encoded("plain.mp3"), SECONDS),
    "huge-cover.flac": (lambda: id3(20_000_000) + LONG("plain.flac"), 9.0),
    "tag-behind.mp4": (lambda: encoded("plain.m4a") + b"TAG" + bytes(125), SECONDS),
    "vbr-no-xing.mp3": (lambda: silence_before("noxing.mp3"), 10 + SECONDS),
    "vbr.aac": (lambda: silence_before("adts.aac"), 10 + SECONDS),
}

CHAINS: dict[str, tuple[Make, Outcome]] = {
    "rate-changes.mp3": (lambda: ONE("noxing.mp3") + ONE("noxing.mp3", sample_rate=22_050), BROKEN),
    "channels-change.mp3": (lambda: ONE("noxing.mp3") + ONE("noxing.mp3", channels=1), BROKEN),
    "rate-changes.aac": (lambda: ONE("adts.aac") + ONE("adts.aac", sample_rate=32_000), CORRUPT),
    "channels-change.aac": (lambda: ONE("adts.aac") + ONE("adts.aac", channels=1), SECONDS),
    "chain.ogg": (lambda: ONE("vorbis.ogg") + ONE("vorbis.ogg", seed=1), SECONDS),
    "chain.opus": (lambda: ONE("plain.opus") + ONE("plain.opus", seed=1), SECONDS),
    "chain-rate.ogg": (lambda: ONE("vorbis.ogg") + ONE("vorbis.ogg", sample_rate=32_000), CORRUPT),
    "chain-channels.ogg": (lambda: ONE("vorbis.ogg") + ONE("vorbis.ogg", channels=1), CORRUPT),
    "chain-channels.oga": (lambda: ONE("flac.ogg") + ONE("flac.ogg", channels=1), SECONDS),
    "chain-rate.oga": (lambda: ONE("flac.ogg") + ONE("flac.ogg", sample_rate=32_000), CORRUPT),
    "chain-codec.ogg": (lambda: ONE("vorbis.ogg") + ONE("plain.opus"), CORRUPT),
    "page-missing.ogg": (lambda: garbage_within("flac.ogg"), CORRUPT),
}

NO_AUDIO: dict[str, tuple[Make, Outcome]] = {
    name: (functools.partial(bytes, data), UNSUPPORTED)
    for name, data in {
        "text.mp3": b"These are the lyrics of a song.\n" * 1_000,
        "text.flac": b"These are the lyrics of a song.\n" * 1_000,
        "html.mp3": b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 50,
        "pdf.mp3": b"%PDF-1.7\n" + bytes(5_000),
        "zip.wav": b"PK\3\4" + bytes(5_000),
        "zeros.mp3": bytes(100_000),
        "ones.mp3": b"\xff" * 100_000,
        "random.mp3": np.random.default_rng(0).bytes(200_000),
        "png.mp3": image("png"),
        "jpeg.m4a": image("jpeg"),
        "gif.ogg": image("gif"),
    }.items()
}

# Where a file breaks off: in its header, in the middle, at its end; or goes on with zeros, or has garbage within.
BREAKS: dict[str, Callable[[str], bytes]] = {
    "header": lambda name: encoded(name)[:200],
    "middle": lambda name: cut(name, 0.6),
    "end": lambda name: cut(name, 0.85),
    "zeros": zero_tail,
    "garbage": garbage_within,
}
# Samples without a code are whatever bytes there are: garbage is noise, and zeros are silence.
PLAIN = (TRUNCATED, TRUNCATED, TRUNCATED, SECONDS, SECONDS)
BROKEN_OUTCOMES: dict[str, tuple[Outcome, ...]] = {
    "pcm8.wav": PLAIN,
    "pcm16.wav": PLAIN,
    "pcm24.wav": PLAIN,
    "pcm32.wav": PLAIN,
    "float.wav": (TRUNCATED, TRUNCATED, TRUNCATED, SECONDS, CORRUPT),  # among random floats are some that are none
    "adpcm.wav": PLAIN,
    "wavex.wav": PLAIN,
    "rf64.wav": PLAIN,
    "plain.aiff": PLAIN,
    "plain.flac": (BROKEN, BROKEN, BROKEN, BROKEN, BROKEN),
    "plain.mp3": (UNSUPPORTED, TRUNCATED, TRUNCATED, BROKEN, BROKEN),
    "noxing.mp3": (UNSUPPORTED, 0.6 * SECONDS, 0.85 * SECONDS, BROKEN, BROKEN),  # nothing says how long it was
    "adts.aac": (UNSUPPORTED, CORRUPT, CORRUPT, CORRUPT, CORRUPT),  # unless cut between frames, nothing would either
    "vorbis.ogg": (TRUNCATED, TRUNCATED, TRUNCATED, TRUNCATED, SECONDS),
    "plain.opus": (TRUNCATED, TRUNCATED, TRUNCATED, TRUNCATED, CORRUPT),
    "plain.m4a": (TRUNCATED, TRUNCATED, TRUNCATED, TRUNCATED, CORRUPT),
    "faststart.m4a": (TRUNCATED, TRUNCATED, TRUNCATED, CORRUPT, CORRUPT),
    "fragmented.m4a": (TRUNCATED, TRUNCATED, TRUNCATED, CORRUPT, BROKEN),
    "alac.m4a": (TRUNCATED, TRUNCATED, TRUNCATED, TRUNCATED, CORRUPT),
    "plain.wma": (UNSUPPORTED, BROKEN, BROKEN, BROKEN, BROKEN),
}
CUTS: dict[str, tuple[Make, Outcome]] = {
    f"{kind}-{name}": (functools.partial(make, name), outcome)
    for name, outcomes in BROKEN_OUTCOMES.items()
    for (kind, make), outcome in zip(BREAKS.items(), outcomes, strict=True)
}
# By the name of another format: what a file is called is not what it is.
MISNAMED: dict[str, tuple[Make, Outcome]] = {
    f"{name}{suffix}": (functools.partial(encoded, name), SECONDS)
    for name in (
        "pcm16.wav",
        "plain.aiff",
        "plain.flac",
        "plain.mp3",
        "vorbis.ogg",
        "plain.opus",
        "adts.aac",
        "plain.m4a",
    )
    for suffix in (".mp3", ".flac", ".m4a", ".wma")
}

FILES = {**WAVS, **FOUND, **HEADERS, **CHAINS, **NO_AUDIO, **CUTS, **MISNAMED}
