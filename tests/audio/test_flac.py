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
    """Loud noise, then silence, then less noise: frames of a few and of thousands of bytes. 24 bits."""
    loudness = np.repeat([0.5, 0.0, 0.001], N_SAMPLES // 3)
    samples = np.random.default_rng(0).uniform(-1, 1, (N_SAMPLES, 2)) * loudness[:, None]
    path = tmp_path_factory.mktemp("flac") / "uneven.flac"
    soundfile.write(path, samples, RATE, "PCM_24")
    return path


def test_frames_cut_out_are_a_file_of_their_samples(uneven):
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


def test_finding_frames_reads_little_of_the_file(uneven, monkeypatch):
    looked_at = []
    number = flac._number
    monkeypatch.setattr(flac, "_number", lambda data, begin: looked_at.append(begin) or number(data, begin))
    for start in range(0, N_SAMPLES - RATE, RATE):
        flac.cut(uneven, start, start + RATE)
    assert len(looked_at) < 50 * N_SAMPLES / RATE


@pytest.mark.parametrize(
    ("start", "stop"),
    [(-1, 5), (5, 5), (6, 5), (0, N_SAMPLES + 1), (N_SAMPLES - 1, N_SAMPLES)],
    ids=["before", "empty", "backwards", "beyond", "in the last frame, which is shorter"],
)
def test_what_has_no_such_frames_gives_none(uneven, start, stop):
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
def test_what_cannot_be_counted_gives_none(uneven, tmp_path, how):
    (tmp_path / "a.flac").write_bytes(damaged(uneven, how))
    assert flac.cut(tmp_path / "a.flac", RATE, 2 * RATE) is None


def test_frames_that_were_lost_are_not_found(uneven, tmp_path):
    whole = flac.cut(uneven, 0, N_SAMPLES)
    begin, end = (len(flac.cut(uneven, 0, stop).content) for stop in (RATE, 3 * RATE))
    (tmp_path / "a.flac").write_bytes(whole.content[:begin] + whole.content[end:])
    assert flac.cut(tmp_path / "a.flac", 2 * RATE, 4 * RATE) is None
    assert flac.cut(tmp_path / "a.flac", 4 * RATE, 5 * RATE).content == flac.cut(uneven, 4 * RATE, 5 * RATE).content


def test_a_part_with_a_damaged_frame_is_left_to_libsndfile(uneven, tmp_path):
    """dr_flac would leave the frame out, and what follows it would come too early."""
    data = bytearray(uneven.read_bytes())
    data[len(flac.cut(uneven, 0, 3 * RATE).content) + 5_000] ^= 1
    (tmp_path / "a.flac").write_bytes(data)
    with reader.open_audio(tmp_path / "a.flac", "a") as decoder:
        with pytest.raises(AudioCorruptError, match="unknown error in flac decoder"):
            list(decoder.blocks(2 * RATE, 5 * RATE))
        assert sum(map(len, decoder.blocks(5 * RATE, 7 * RATE))) == 2 * RATE


def test_a_part_whose_only_frame_is_damaged_is_none(uneven, tmp_path):
    data = bytearray(uneven.read_bytes())
    data[len(data) - len(flac.cut(uneven, 70 * RATE, N_SAMPLES).content) + 42 + 1_000] ^= 1
    (tmp_path / "a.flac").write_bytes(data)
    with reader.open_audio(tmp_path / "a.flac", "a") as decoder, pytest.raises(AudioCorruptError):
        list(decoder.blocks(70 * RATE, 70 * RATE + 1))
