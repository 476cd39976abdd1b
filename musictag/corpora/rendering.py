"""Render an arrangement to a waveform: tinysoundfont plays it with the General MIDI soundfont in pretty_midi.

tinysoundfont is imported only when a song is rendered. pretty_midi is never imported: only its soundfont is read.
"""

import dataclasses

import numpy as np
import numpy.typing as npt
import scipy.signal

from musictag.corpora.arrangement import DRUM_CHANNEL, Arrangement
from musictag.corpora.essen import package_folder


def render(
    arrangement: Arrangement, rng: np.random.Generator, *, sample_rate: int, channels: int, seconds: float
) -> npt.NDArray[np.float32]:
    """Return the song as float32 (samples, channels) within -1..1, with reverb and a noise floor.

    `channels` is 1 or 2. Raises `UsageError` if tinysoundfont or pretty_midi is not installed.
    """
    dry = _mix(arrangement, sample_rate=sample_rate, seconds=seconds)
    wet = scipy.signal.fftconvolve(dry, _room_impulse_response(rng, sample_rate), axes=0)[: len(dry)]
    wet *= np.sqrt(np.mean(dry**2) / np.mean(wet**2))
    mix = (1 - arrangement.reverb) * dry + arrangement.reverb * wet
    if channels == 1:
        mix = mix.mean(axis=1, keepdims=True)
    mix *= arrangement.peak / np.abs(mix).max()
    mix += rng.normal(0, 10 ** (arrangement.noise_db / 20), mix.shape)
    waveform: npt.NDArray[np.float32] = np.clip(mix, -1, 1).astype(np.float32)
    return waveform


def _mix(arrangement: Arrangement, *, sample_rate: int, seconds: float) -> npt.NDArray[np.float64]:
    """Return the sum of the channels (samples, 2) at the levels of `balance_db`, without reverb.

    The measured level of each channel is used, because the programs of a soundfont differ by up to 20 dB.
    """
    mix = np.zeros((round(seconds * sample_rate), 2))
    for channel, level_db in arrangement.balance_db.items():
        notes = tuple(note for note in arrangement.notes if note.channel == channel)
        part = _synthesize(dataclasses.replace(arrangement, notes=notes), sample_rate=sample_rate, seconds=seconds)
        mix += part * (10 ** (level_db / 20) / max(1e-9, np.sqrt(np.mean(part**2))))
    return mix


def _synthesize(arrangement: Arrangement, *, sample_rate: int, seconds: float) -> npt.NDArray[np.float64]:
    """Return all notes as the soundfont plays them, (samples, 2)."""
    soundfont = package_folder("pretty_midi") / "TimGM6mb.sf2"
    package_folder("tinysoundfont")
    import tinysoundfont

    synth = tinysoundfont.Synth(gain=-12.0, samplerate=sample_rate)
    font = synth.sfload(str(soundfont))
    for channel, program in arrangement.programs.items():
        synth.program_select(channel, font, 0, program)
    synth.program_select(DRUM_CHANNEL, font, 128, arrangement.drum_kit, True)
    n_samples = round(seconds * sample_rate)
    # (sample, is_start, channel, key, velocity): False sorts first, so a key is released before it is struck again.
    events = [(round(note.end_s * sample_rate), False, note.channel, note.key, 0) for note in arrangement.notes]
    events += [
        (round(note.start_s * sample_rate), True, note.channel, note.key, note.velocity) for note in arrangement.notes
    ]
    pieces = []
    now = 0
    for sample, is_start, channel, key, velocity in sorted(event for event in events if event[0] < n_samples):
        if sample > now:
            pieces.append(np.frombuffer(synth.generate(sample - now), np.float32))
            now = sample
        if is_start:
            synth.noteon(channel, key, velocity)
        else:
            synth.noteoff(channel, key)
    pieces.append(np.frombuffer(synth.generate(n_samples - now), np.float32))
    return np.concatenate(pieces).reshape(-1, 2).astype(np.float64)


def _room_impulse_response(rng: np.random.Generator, sample_rate: int) -> npt.NDArray[np.float64]:
    """Return noise (samples, 2) that decays by 60 dB in 0.6-1.6 s."""
    decay_s = rng.uniform(0.6, 1.6)
    time_s = np.arange(round(decay_s * sample_rate)) / sample_rate
    response: npt.NDArray[np.float64] = rng.normal(size=(len(time_s), 2)) * 10 ** (-3 * time_s / decay_s)[:, None]
    return response
