"""Audio for the golden tests, made from formulas, and `synthesized.npz`, which holds what is expected of it.

The file was written by version 0.1 (commit 8bc473a), whose results were equal to `golden.npz` of the published package
musicnn. Write it again only where other results are wanted:

PYTHONPATH=. .venv/bin/python tests/golden/synthesize.py
"""

from pathlib import Path

import numpy as np
import soundfile

from musictag.features.config import FeatureConfig
from musictag.features.log_mel import log_mel
from musictag.models.artifact import load_model
from musictag.models.published import pretrained
from musictag.tagging.scorers import score_clips

SAMPLE_RATE = 16_000
SECONDS = 8
N_CLIPS = 2
"""Whole clips of 3 s."""
EXPECTED = Path(__file__).parent / "synthesized.npz"
WAVEFORM_STEP, LOG_MEL_STEP = 20, 2
"""The file holds every 20th sample of the waveform and every second frame of its log-mel."""
# The fundamental of each note in Hz.
NOTES = (110.0, 164.8, 220.0, 277.2, 329.6, 440.0, 554.4, 659.3)


def synthesize() -> np.ndarray:
    """Notes that fade, a chirp from 100 to 7,900 Hz, and noise: float32 (samples,), with values that 16 bits hold."""
    time = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    sound = 0.02 * _noise(len(time)) * (0.2 + time / SECONDS)
    for number in range(2 * SECONDS):
        since = time - 0.5 * number
        sound += np.where(since >= 0, _note(NOTES[3 * number % len(NOTES)], np.maximum(since, 0)), 0)
    sweep = 100 * time + (7_900 - 100) / (2 * SECONDS) * time**2  # cycles
    sound += 0.03 * np.sin(2 * np.pi * sweep)
    return (np.round(sound * 32_767) / 32_768).astype(np.float32)


def _note(hertz: float, since: np.ndarray) -> np.ndarray:
    """Five harmonics that fade, from `since` seconds after the stroke."""
    harmonics = sum(np.sin(2 * np.pi * hertz * h * since) / h for h in range(1, 6))
    return 0.15 * harmonics * np.exp(-4 * since)


def _noise(n_samples: int) -> np.ndarray:
    """White noise from -1 to 1. NumPy promises that the raw numbers stay the same in all of its versions."""
    return np.random.PCG64(0).random_raw(n_samples).astype(np.float64) / 2.0**63 - 1


def write_audio(folder: Path) -> Path:
    """The audio as a FLAC file of 16 bits, which changes no sample."""
    path = folder / "synthesized.flac"
    soundfile.write(path, synthesize(), SAMPLE_RATE, subtype="PCM_16")
    return path


def clips_of(spectrogram: np.ndarray, config: FeatureConfig, n_clips: int = N_CLIPS) -> np.ndarray:
    """The first clips (C, T, M) of a log-mel spectrogram (frames, M)."""
    return spectrogram[: n_clips * config.clip_frames].reshape(n_clips, config.clip_frames, config.n_mels)


def main() -> None:
    """Write `synthesized.npz`."""
    config, waveform = FeatureConfig(), synthesize()
    spectrogram = log_mel(waveform, config)
    scores = {}
    for name in pretrained.PUBLISHED:
        network, _ = load_model(pretrained.find(name))
        scores[f"scores/{name}"] = score_clips(network, clips_of(spectrogram, config))
    np.savez_compressed(EXPECTED, waveform=waveform[::WAVEFORM_STEP], log_mel=spectrogram[::LOG_MEL_STEP], **scores)


if __name__ == "__main__":
    main()
