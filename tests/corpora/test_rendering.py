import dataclasses

import numpy as np
import pytest

from musictag.corpora.arrangement import DRUM_CHANNEL, Arrangement, Note
from musictag.corpora.drumming import KITS
from musictag.corpora.rendering import render


def song(*notes, peak=0.5):
    channels = {note.channel: 0.0 for note in notes}
    return Arrangement(tuple(notes), {0: 73}, 0.2, channels, noise_db=-70.0, peak=peak, tags=())


def test_note_has_its_pitch_and_time():
    waveform = render(
        song(Note(0.5, 1.4, 0, 69, 100)), np.random.default_rng(0), sample_rate=22_050, channels=1, seconds=2.0
    )
    assert waveform.shape == (44_100, 1)
    assert waveform.dtype == np.float32
    assert np.abs(waveform[:11_000]).max() < 0.01
    note = waveform[13_000:29_384, 0] * np.hanning(16_384)
    # A flute's octave, 880 Hz, may be stronger than its fundamental.
    peak_hz = np.argmax(np.abs(np.fft.rfft(note))) * 22_050 / 16_384
    assert min(abs(peak_hz - 440), abs(peak_hz - 880)) < 10


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("peak", [0.35, 0.85])
def test_largest_sample_is_the_peak(channels, peak):
    notes = [Note(0.2 * i, 0.2 * i + 0.2, 0, 60 + i, 127) for i in range(5)]
    waveform = render(
        song(*notes, peak=peak), np.random.default_rng(0), sample_rate=44_100, channels=channels, seconds=1.0
    )
    assert waveform.shape == (44_100, channels)
    assert np.abs(waveform).max() == pytest.approx(peak, abs=0.01)


def test_balance_overrides_velocities_and_programs():
    loud, soft = Note(0.0, 0.8, 0, 72, 127), Note(1.0, 1.8, 1, 60, 30)
    two = Arrangement((loud, soft), {0: 73, 1: 0}, 0.0, {}, noise_db=-90.0, peak=0.5, tags=())
    ratios = []
    for balance in ({0: 0.0, 1: 0.0}, {0: -6.0, 1: 0.0}):
        waveform = render(
            dataclasses.replace(two, balance_db=balance),
            np.random.default_rng(0),
            sample_rate=22_050,
            channels=1,
            seconds=2.0,
        )
        first, second = (np.sqrt(np.mean(half**2)) for half in np.split(waveform, 2))
        ratios.append(first / second)
    assert ratios == pytest.approx([1.0, 0.5], rel=0.2)


def test_drum_kits_are_audible_and_differ():
    snare = song(Note(0.1, 0.2, DRUM_CHANNEL, 38, 110))
    sounds = [
        render(
            dataclasses.replace(snare, drum_kit=kit),
            np.random.default_rng(0),
            sample_rate=22_050,
            channels=1,
            seconds=0.5,
        )
        for kit in KITS
    ]
    assert all(np.sqrt(np.mean(sound**2)) > 0.01 for sound in sounds)
    assert len({sound.tobytes() for sound in sounds}) >= 4
