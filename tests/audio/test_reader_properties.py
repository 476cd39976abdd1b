import io
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.audio import pcm, reader
from musictag.audio.mixing import WAVE_LAYOUTS, Mixer

RATES = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000)
rates = st.sampled_from(RATES)


@st.composite
def wav_files(draw):
    """Return the bytes of a WAV file of noise, its samples (samples, channels) float32 and its sample rate."""
    rate = draw(rates)
    n_samples, n_channels, seed = draw(st.integers(1, 30_000)), draw(st.integers(1, 3)), draw(st.integers(0, 99))
    samples = np.random.default_rng(seed).uniform(-1, 1, (n_samples, n_channels)).astype(np.float32)
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, "FLOAT", format="WAV")
    return stream.getvalue(), samples, rate


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Make blocks so small that most files have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pcm, "BLOCK_SAMPLES", 4_001)
        yield


def decode(content, sample_rate, span=None):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        path.write_bytes(content)
        with reader.open_audio(path, "a") as audio:
            if span is not None:
                return reader.excerpt(audio, sample_rate, *span)
            return np.concatenate(list(reader.waveform_blocks(audio, sample_rate)))


@settings(max_examples=60, deadline=None)
@given(wav_files(), rates)
def test_blocks_equal_the_whole_file_resampled_at_once(file, sample_rate):
    content, samples, rate = file
    expected = Mixer().mono(samples, WAVE_LAYOUTS.get(samples.shape[1], ()))
    if rate != sample_rate:
        expected = soxr.resample(expected, rate, sample_rate, quality="HQ")
    waveform = decode(content, sample_rate)
    assert len(waveform) == math.ceil(len(samples) * sample_rate / rate)
    # soxr may round the length down.
    assert 0 <= len(waveform) - len(expected) <= 1
    np.testing.assert_allclose(waveform[: len(expected)], expected, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(wav_files(), rates, st.data())
def test_an_excerpt_equals_the_same_samples_of_the_whole(file, sample_rate, data):
    content, _, _ = file
    whole = decode(content, sample_rate)
    start = data.draw(st.integers(0, len(whole) - 1))
    stop = data.draw(st.integers(start + 1, len(whole)))
    np.testing.assert_allclose(decode(content, sample_rate, (start, stop)), whole[start:stop], atol=2e-5)
