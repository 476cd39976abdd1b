import mmap

import miniaudio
import numpy as np
import pytest
import soundfile

from musictag.audio import flac, reader
from musictag.errors import AudioCorruptError

RATE, FRAME = 44_100, 4_096
N_SAMPLES = 90 * RATE


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Loud noise, then silence, then soft noise, 24 bits: frames of a few and of thousands of bytes."""
    loudness = np.repeat([0.5, 0.0, 0.001], N_SAMPLES // 3)
    samples = np.random.default_rng(0).uniform(-1, 1, (N_SAMPLES, 2)) * loudness[:, None]
    path = tmp_path_factory.mktemp("flac") / "uneven.flac"
    soundfile.write(path, samples, RATE, "PCM_24")
    return path


def test_cut_frames_decode_to_the_same_samples(uneven):
    everything, _ = soundfile.read(uneven, dtype="float32")
    rng = np.random.default_rng(1)
    last_frame = N_SAMPLES // FRAME * FRAME
    spans = [(0, 1), (0, N_SAMPLES), (FRAME, 2 * FRAME), (last_frame - 1, N_SAMPLES)]
    starts = rng.integers(0, last_frame, 200).tolist()
    lengths = rng.integers(1, 200_000, 200).tolist()
    spans += [(start, min(N_SAMPLES, start + length)) for start, length in zip(starts, lengths, strict=True)]
    for start, stop in spans:
        part = flac.cut(uneven, start, stop)
        assert part.start <= start < part.start + FRAME
        assert stop <= part.start + part.n_samples < stop + 2 * FRAME
        decoded = miniaudio.decode(part.content, miniaudio.SampleFormat.FLOAT32, nchannels=2, sample_rate=RATE)
        samples = np.frombuffer(decoded.samples, np.float32).reshape(-1, 2)
        assert np.array_equal(samples, everything[part.start : part.start + part.n_samples])


class CountingMmap(mmap.mmap):
    """A mapped file that counts how often a part of it is read."""

    n_reads = 0

    def __getitem__(self, key):
        self.n_reads += 1
        return super().__getitem__(key)


def test_finding_a_frame_reads_few_headers(uneven):
    with uneven.open("rb") as file, CountingMmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        stream = flac._read_stream(data)
        wanted = range(0, stream.n_frames - 1, RATE // FRAME)
        data.n_reads = 0
        for number in wanted:
            assert flac._find_frame(data, stream, number) is not None
        assert data.n_reads < 25 * len(wanted)


@pytest.mark.parametrize(
    ("start", "stop"),
    [(-1, 5), (5, 5), (6, 5), (0, N_SAMPLES + 1), (N_SAMPLES - 1, N_SAMPLES)],
    ids=["before", "empty", "backwards", "beyond", "in the last frame, which is shorter"],
)
def test_samples_outside_the_file_give_none(uneven, start, stop):
    assert flac.cut(uneven, start, stop) is None


def damaged(path, how):
    data = bytearray(path.read_bytes())
    frames = data.index(flac.SYNC)
    if how == "lengths differ":
        data[8:10] = (16).to_bytes(2, "big")
    elif how == "cut from a longer one":
        data = data[:frames] + data[data.index(data[frames : frames + 3], frames + 10) :]
    elif how == "metadata without end":
        data[4] = 0
        del data[42:]
    elif how == "another format":
        data[:4] = b"RIFF"
    elif how == "too short for a header":
        del data[frames + 8 :]
    return bytes(data)


@pytest.mark.parametrize(
    "how",
    ["lengths differ", "cut from a longer one", "metadata without end", "another format", "too short for a header"],
)
def test_a_file_without_usable_frame_numbers_gives_none(uneven, tmp_path, how):
    (tmp_path / "a.flac").write_bytes(damaged(uneven, how))
    assert flac.cut(tmp_path / "a.flac", RATE, 2 * RATE) is None


def test_missing_frames_give_none(uneven, tmp_path):
    whole = flac.cut(uneven, 0, N_SAMPLES)
    begin, end = (len(flac.cut(uneven, 0, stop).content) for stop in (RATE, 3 * RATE))
    (tmp_path / "a.flac").write_bytes(whole.content[:begin] + whole.content[end:])
    assert flac.cut(tmp_path / "a.flac", 2 * RATE, 4 * RATE) is None
    assert flac.cut(tmp_path / "a.flac", 4 * RATE, 5 * RATE).content == flac.cut(uneven, 4 * RATE, 5 * RATE).content


def test_a_part_with_a_damaged_frame_is_decoded_by_libsndfile(uneven, tmp_path):
    """dr_flac would skip the frame, and shift the samples after it."""
    data = bytearray(uneven.read_bytes())
    data[len(flac.cut(uneven, 0, 3 * RATE).content) + 5_000] ^= 1
    (tmp_path / "a.flac").write_bytes(data)
    with reader.open_audio(tmp_path / "a.flac", "a") as decoder:
        with pytest.raises(AudioCorruptError, match="unknown error in flac decoder"):
            list(decoder.blocks(2 * RATE, 5 * RATE))
        assert sum(map(len, decoder.blocks(5 * RATE, 7 * RATE))) == 2 * RATE


def test_a_part_of_one_damaged_frame_is_an_error(uneven, tmp_path):
    data = bytearray(uneven.read_bytes())
    data[len(data) - len(flac.cut(uneven, 70 * RATE, N_SAMPLES).content) + 42 + 1_000] ^= 1
    (tmp_path / "a.flac").write_bytes(data)
    with reader.open_audio(tmp_path / "a.flac", "a") as decoder, pytest.raises(AudioCorruptError):
        list(decoder.blocks(70 * RATE, 70 * RATE + 1))
