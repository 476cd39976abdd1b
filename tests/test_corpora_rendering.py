import numpy as np
import pytest

from musictag.corpora.arrangement import Arrangement, Note
from musictag.corpora.rendering import render


def song(*notes, peak=0.5):
    return Arrangement(tuple(notes), {0: 73}, reverb=0.2, noise_db=-70.0, peak=peak, tags=())


def test_a_note_sounds_at_its_pitch_and_time():
    waveform = render(
        song(Note(0.5, 1.4, 0, 69, 100)), np.random.default_rng(0), sample_rate=22_050, channels=1, seconds=2.0
    )
    assert waveform.shape == (44_100, 1)
    assert waveform.dtype == np.float32
    assert np.abs(waveform[:11_000]).max() < 0.01
    sounding = waveform[13_000:29_384, 0] * np.hanning(16_384)
    # 440 Hz or, because flutes are rich in it, its octave.
    peak_hz = np.argmax(np.abs(np.fft.rfft(sounding))) * 22_050 / 16_384
    assert min(abs(peak_hz - 440), abs(peak_hz - 880)) < 10


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("peak", [0.35, 0.85])
def test_the_loudest_sample_is_as_asked(channels, peak):
    notes = [Note(0.2 * i, 0.2 * i + 0.2, 0, 60 + i, 127) for i in range(5)]
    waveform = render(
        song(*notes, peak=peak), np.random.default_rng(0), sample_rate=44_100, channels=channels, seconds=1.0
    )
    assert waveform.shape == (44_100, channels)
    assert np.abs(waveform).max() == pytest.approx(peak, abs=0.01)
