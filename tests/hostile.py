"""Damaged, malicious and unusual audio files, and the expected result of each.

`FILES` maps a file name to a function that makes its bytes and to the expected result: the duration in s if it can be
decoded, or the allowed errors. All names have suffixes of audio files, so a folder of these files is a catalog.
"""

import functools
import struct
from collections.abc import Callable

import numpy as np

from damage import (
    boxes_in_boxes,
    cut,
    flac,
    flipped,
    floats,
    garbage_within,
    id3,
    image,
    patched,
    patched_ogg,
    rf64_of_a_terabyte,
    silence_before,
    two_kinds_of_frames,
    video,
    wav,
    with_long_header,
    without_index,
    zero_tail,
)
from encoding import RATE, SECONDS, by_soundfile, encoded, sound
from musictag.errors import (
    AudioCorruptError,
    AudioEmptyError,
    AudioError,
    AudioTooLongError,
    AudioTruncatedError,
    AudioUnsupportedError,
)

Make = Callable[[], bytes]
Outcome = float | tuple[type[AudioError], ...]

CORRUPT, EMPTY, TRUNCATED, UNSUPPORTED = (
    (error,) for error in (AudioCorruptError, AudioEmptyError, AudioTruncatedError, AudioUnsupportedError)
)
# Formats that number their samples, such as FLAC: decoders report an error or decode too few samples.
BROKEN = TRUNCATED + CORRUPT
# Invalid headers: no decoder recognizes the file, or one tries and fails.
NO_HEADER = UNSUPPORTED + CORRUPT
ONE = functools.partial(encoded, seconds=1.0)
LONG = functools.partial(encoded, seconds=9.0, channels=1)

WAVS: dict[str, tuple[Make, Outcome]] = {
    **{
        f"header-{'-'.join(f'{name}-{value}' for name, value in fields.items())}.wav": (
            functools.partial(wav, **fields),
            outcome,
        )
        for fields, outcome in (
            ({"size": 0}, SECONDS),  # a recorder that crashed: the samples extend to the end
            ({"size": 1}, CORRUPT),
            ({"size": 352_799}, SECONDS),
            ({"size": 352_801}, SECONDS),
            ({"size": 705_600}, TRUNCATED),
            ({"size": 0x7FFF_FFFF}, TRUNCATED),
            (
                {"size": 0x7FFF_F000},
                SECONDS,
            ),  # SoX and FFmpeg, when they write to a pipe: the samples extend to the end
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
            ({"kind": 3, "bits": 32}, CORRUPT),  # integers declared as floats: some are NaN
        )
    },
    "nan.wav": (lambda: floats(np.nan), CORRUPT),
    "infinity.wav": (lambda: floats(np.inf), CORRUPT),
    "infinity.aiff": (lambda: floats(-np.inf, "AIFF"), CORRUPT),
    "1e38.wav": (lambda: floats(1e38), CORRUPT),
    "1e300.wav": (lambda: floats(1e300, "WAV", "DOUBLE"), CORRUPT),
    "integers-as-floats.wav": (lambda: by_soundfile(sound() * 2**31, RATE, "WAV", "FLOAT"), CORRUPT),
    "terabyte.wav": (rf64_of_a_terabyte, TRUNCATED),
}

# Files that the fuzzer found.
FOUND: dict[str, tuple[Make, Outcome]] = {
    "box-of-2e63.m4a": (lambda: encoded("plain.m4a") + struct.pack(">I4sQ", 1, b"free", 2**63 - 1), SECONDS),
    "box-before-of-2e63.m4a": (lambda: struct.pack(">I4sQ", 1, b"ftyp", 2**63 - 1) + bytes(5_000), TRUNCATED),
    "chunk-of-2e63.aiff": (lambda: b"caff\0\1\0\0" + struct.pack(">4sq", b"desc", 2**63 - 1) + bytes(500), NO_HEADER),
    "5e7-samples-of-no-kind.m4a": (
        lambda: b"\0\0\0\x08none" + patched("plain.m4a", b"stsz", 8, struct.pack(">II", 1, 50_000_000)),
        CORRUPT,
    ),
    "5e7-samples.m4a": (lambda: patched("plain.m4a", b"stsz", 8, struct.pack(">II", 1, 50_000_000)), CORRUPT),
    "5e7-samples-in-a-long-box.m4a": (
        lambda: with_long_header(patched("plain.m4a", b"stsz", 8, struct.pack(">II", 1, 50_000_000)), b"moov"),
        CORRUPT,
    ),
    "long-box.m4a": (lambda: with_long_header(encoded("plain.m4a"), b"moov"), SECONDS),
    "boxes-in-boxes.m4a": (lambda: boxes_in_boxes(), UNSUPPORTED),
    "2e9-samples.m4a": (lambda: patched("fragmented.m4a", b"trun", 8, struct.pack(">I", 2**31 - 1)), CORRUPT),
    "no-setup.ogg": (lambda: patched_ogg("vorbis.ogg", b"\x05vorbis", 30, bytes(40)), EMPTY + CORRUPT),
    "seeks-beyond-its-end.mp3": (lambda: bytes(2_400) + two_kinds_of_frames(), BROKEN),
}

HEADERS: dict[str, tuple[Make, Outcome]] = {
    "channels-0.aiff": (lambda: patched("plain.aiff", b"COMM", 8, bytes(2)), UNSUPPORTED),
    "channels-65535.aiff": (lambda: patched("plain.aiff", b"COMM", 8, b"\xff\xff"), NO_HEADER),
    "rate-0.aiff": (lambda: patched("plain.aiff", b"COMM", 16, bytes(10)), CORRUPT),
    "rate-2e31.aiff": (lambda: patched("plain.aiff", b"COMM", 16, b"\x40\x1d" + b"\xff" * 8), CORRUPT),
    "rate-1048575.flac": (lambda: flac(None, 18, b"\xff\xff\xf0"), CORRUPT),
    "unknown-length.flac": (lambda: flac(0), SECONDS),  # as FLAC written to a pipe
    "declares-too-much.flac": (lambda: flac(2**36 - 1), (AudioTooLongError,)),
    "header-alone.flac": (lambda: encoded("plain.flac")[:42], BROKEN),
    "channels-0.ogg": (lambda: patched_ogg("vorbis.ogg", b"\x01vorbis", 11, b"\0"), NO_HEADER),
    "rate-0.ogg": (lambda: patched_ogg("vorbis.ogg", b"\x01vorbis", 12, bytes(4)), NO_HEADER),
    "rate-2e31.ogg": (lambda: patched_ogg("vorbis.ogg", b"\x01vorbis", 12, b"\xff\xff\xff\x7f"), CORRUPT),
    "channels-255.opus": (lambda: patched_ogg("plain.opus", b"OpusHead", 9, b"\xff"), NO_HEADER),
    "rate-0.opus": (
        lambda: patched_ogg("plain.opus", b"OpusHead", 12, bytes(4)),
        SECONDS,
    ),  # only informative: the rate is always 48 kHz
    "no-samples.m4a": (lambda: patched("plain.m4a", b"stsz", 8, bytes(8)), EMPTY + TRUNCATED),
    "index-of-wrong-places.m4a": (lambda: patched("plain.m4a", b"stco", 8, b"\xff" * 8), EMPTY + BROKEN),
    "video-alone.mp4": (video, UNSUPPORTED),
    "no-index.m4a": (lambda: without_index("fragmented.m4a"), UNSUPPORTED),
    "ftyp-alone.m4a": (lambda: encoded("plain.m4a")[:28], TRUNCATED),
    "id3-alone.mp3": (lambda: id3(1_000), UNSUPPORTED),
    "id3-too-small.mp3": (lambda: id3(100_000, declared=10) + encoded("plain.mp3"), SECONDS),
    # A tag that is declared too large hides the first frames, or all of them.
    "id3-too-large.mp3": (lambda: id3(1_000, declared=2_000) + encoded("plain.mp3"), SECONDS - 0.07),
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
    "channels-change.mp3": (lambda: ONE("noxing.mp3") + ONE("noxing.mp3", channels=1), SECONDS),
    "rate-changes.aac": (lambda: ONE("adts.aac") + ONE("adts.aac", sample_rate=32_000), CORRUPT),
    "channels-change.aac": (lambda: ONE("adts.aac") + ONE("adts.aac", channels=1), SECONDS),
    "chain.ogg": (lambda: ONE("vorbis.ogg") + ONE("vorbis.ogg", seed=1), SECONDS),
    "chain.opus": (lambda: ONE("plain.opus") + ONE("plain.opus", seed=1), SECONDS),
    "chain-rate.ogg": (lambda: ONE("vorbis.ogg") + ONE("vorbis.ogg", sample_rate=32_000), SECONDS),
    "chain-channels.ogg": (lambda: ONE("vorbis.ogg") + ONE("vorbis.ogg", channels=1), SECONDS),
    "chain-channels.oga": (lambda: ONE("flac.ogg") + ONE("flac.ogg", channels=1), SECONDS),
    "chain-rate.oga": (lambda: ONE("flac.ogg") + ONE("flac.ogg", sample_rate=32_000), SECONDS),
    "chain-codec.ogg": (lambda: ONE("vorbis.ogg") + ONE("plain.opus"), SECONDS),
    "page-missing.ogg": (lambda: garbage_within("flac.ogg"), CORRUPT),
    "one-bit.ogg": (lambda: flipped("vorbis.ogg"), CORRUPT),
    "one-bit.opus": (lambda: flipped("plain.opus"), CORRUPT),
    "one-bit.oga": (lambda: flipped("flac.ogg"), CORRUPT),
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
        "tiff.ogg": image("tiff"),
    }.items()
}

# Truncated in the header, in the middle or near the end; or with zeros at the end, or with garbage in the middle.
BREAKS: dict[str, Callable[[str], bytes]] = {
    "header": lambda name: encoded(name)[:200],
    "middle": lambda name: cut(name, 0.6),
    "end": lambda name: cut(name, 0.85),
    "zeros": zero_tail,
    "garbage": garbage_within,
}
# In uncompressed formats all bytes are valid samples: garbage is noise, and zeros are silence.
PLAIN = (TRUNCATED, TRUNCATED, TRUNCATED, SECONDS, SECONDS)
BROKEN_OUTCOMES: dict[str, tuple[Outcome, ...]] = {
    "pcm8.wav": PLAIN,
    "pcm16.wav": PLAIN,
    "pcm24.wav": PLAIN,
    "pcm32.wav": PLAIN,
    "float.wav": (TRUNCATED, TRUNCATED, TRUNCATED, SECONDS, CORRUPT),  # some random floats are NaN
    "adpcm.wav": PLAIN,
    "wavex.wav": PLAIN,
    "rf64.wav": PLAIN,
    "plain.aiff": PLAIN,
    "plain.flac": (BROKEN, BROKEN, BROKEN, BROKEN, BROKEN),
    "plain.mp3": (UNSUPPORTED, TRUNCATED, TRUNCATED, BROKEN, BROKEN),
    "noxing.mp3": (UNSUPPORTED, 0.6 * SECONDS, 0.85 * SECONDS, BROKEN, BROKEN),  # it declares no length
    "adts.aac": (
        UNSUPPORTED,
        CORRUPT,
        CORRUPT,
        CORRUPT,
        CORRUPT,
    ),  # it declares no length either, but is cut within a frame
    "vorbis.ogg": (TRUNCATED, TRUNCATED, TRUNCATED, TRUNCATED, CORRUPT),
    "plain.opus": (TRUNCATED, TRUNCATED, TRUNCATED, TRUNCATED, CORRUPT),
    "plain.m4a": (TRUNCATED, TRUNCATED, TRUNCATED, TRUNCATED, CORRUPT),
    "faststart.m4a": (TRUNCATED, TRUNCATED, TRUNCATED, CORRUPT, CORRUPT),
    "fragmented.m4a": (TRUNCATED, TRUNCATED, TRUNCATED, CORRUPT, BROKEN),
    "alac.m4a": (TRUNCATED, TRUNCATED, TRUNCATED, TRUNCATED, CORRUPT),
    "plain.wma": (TRUNCATED, BROKEN, BROKEN, BROKEN, BROKEN),
}
CUTS: dict[str, tuple[Make, Outcome]] = {
    f"{kind}-{name}": (functools.partial(make, name), outcome)
    for name, outcomes in BROKEN_OUTCOMES.items()
    for (kind, make), outcome in zip(BREAKS.items(), outcomes, strict=True)
}
# Files with the suffix of another format: the suffix must not matter.
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
