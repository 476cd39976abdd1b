"""Fuzz the decoding layer: whatever the bytes, `features.track_clips` gives good clips or an `AudioError`.

python tests/fuzz/fuzz_audio.py CORPUS_FOLDER [libFuzzer's options, such as -max_total_time=3600]

Decoders are C and not instrumented here. What stands in for their coverage is what comes of the bytes (number of clips
and length, or the words of the error): each outcome that was not there before counts as new coverage. libFuzzer mutates
bytes; our mutator also writes numbers that headers trip over, cuts and repeats, and mends the checksums of Ogg pages.
"""

import random
import re
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["musictag"]):
    import musictag.audio.reader
    import musictag.features.extract

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

import encoding
from musictag.audio import ogg_pages
from musictag.errors import AudioError
from musictag.features.config import FeatureConfig

# Clips so short that some of a small file's are decoded alone.
CONFIG = FeatureConfig(clip_frames=4)
SEED_SECONDS, SEED_RATES = 0.3, {"plain.opus": 48_000}
N_REPORTS = 4_096
# What decoding an input of at most some 100 kB may add to the memory of the process at its peak, MiB.
MEMORY_MIB = 300
# Linux: this forgets the peak so far. libFuzzer keeps what it found, so that the process grows by itself in an hour.
CLEAR_REFS, PEAK = Path("/proc/self/clear_refs"), "5"
# What an error says of the bytes, which makes it no new outcome.
QUOTES_AND_NUMBERS = re.compile(r"(['\"])(?:\\.|.)*?\1|[-\d.,]+", re.DOTALL)
NUMBERS = (0, 1, 2, 3, 7, 8, 255, 1_000, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
PACKINGS = ("B", "<H", ">H", "<I", ">I", "<Q", ">Q")
SAMPLES = (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f")  # float32: NaN, infinity, the largest


def reports() -> list[Callable[[], int]]:
    """One instrumented function per report, so that a report is an edge that libFuzzer sees."""
    return [atheris.instrument_func(eval(f"lambda: {number}")) for number in range(N_REPORTS)]  # noqa: S307


def peak_mib() -> float:
    """The most memory that this process has had since its peak was forgotten, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


REPORTS = reports()
FILE = Path(f"{sys.argv[1]}-input")


def test_one_input(data: bytes) -> None:
    """What libFuzzer calls: an exception that leaves it is a finding."""
    FILE.write_bytes(data)
    for clips_per_track in (None, 3):
        CLEAR_REFS.write_text(PEAK, encoding="ascii")
        before_mib = peak_mib()
        try:
            clips, starts, duration_s, _ = musictag.features.extract.track_clips(FILE, "track", CONFIG, clips_per_track)
        except AudioError as error:
            report = type(error).__name__ + QUOTES_AND_NUMBERS.sub("#", str(error))
        else:
            assert clips.dtype == np.float16
            assert clips.shape == (len(starts), CONFIG.clip_frames, CONFIG.n_mels)
            assert len(starts) >= 1
            assert np.isfinite(clips).all()
            assert 0 < duration_s < 1e7
            report = f"{clips_per_track} {len(starts).bit_length()} {int(10 * duration_s).bit_length()}"
        assert peak_mib() < before_mib + MEMORY_MIB
        REPORTS[zlib.crc32(report.encode()) % N_REPORTS]()


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """A custom mutator of libFuzzer: half its own mutations, half those that audio files need."""
    rng, mutated = random.Random(seed), bytearray(data)  # noqa: S311
    if not data or rng.random() < 0.5:
        mutated = bytearray(atheris.Mutate(data, max_size))
    else:
        # Headers are small: half of what is written goes into the first bytes.
        place = rng.randrange(min(len(data), 256) if rng.random() < 0.5 else len(data))
        match rng.randrange(5):
            case 0 | 1:
                packing = rng.choice(PACKINGS)
                number = struct.pack(packing, rng.choice(NUMBERS) & (256 ** struct.calcsize(packing) - 1))
                mutated[place : place + len(number)] = number
            case 2:
                del mutated[place:]
            case 3:
                mutated[place:place] = mutated[place : place + rng.randrange(1, 4_096)]
            case 4:
                sample = rng.choice(SAMPLES)
                mutated[place // 4 * 4 : place // 4 * 4 + len(sample)] = sample
    if b"OggS" in mutated and rng.random() < 0.8:
        mend_ogg(mutated)
    return bytes(mutated[:max_size])


def mend_ogg(data: bytearray) -> None:
    """Write the checksums that the pages of an Ogg stream now have: decoders skip pages with others."""
    for match in re.finditer(b"OggS", bytes(data)):
        begin = match.start()
        sizes = data[begin + 27 : begin + 27 + data[begin + 26]] if begin + 26 < len(data) else b""
        end = begin + 27 + len(sizes) + sum(sizes)
        if not sizes or end > len(data):
            continue
        data[begin + 22 : begin + 26] = ogg_pages.checksum(bytes(data[begin:end]))


def write_seeds(folder: Path) -> None:
    """A small file of each format."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in encoding.FORMATS:
        for channels in (1, 2):
            rate = SEED_RATES.get(name, 8_000)
            (folder / f"{channels}-{name}").write_bytes(encoding.encoded(name, SEED_SECONDS, rate, channels))


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
    atheris.Setup(sys.argv, test_one_input, custom_mutator=mutate)
    atheris.Fuzz()
