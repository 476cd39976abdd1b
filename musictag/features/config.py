"""The settings of the front end (resampling, spectrogram, clips) and their hash.

Features, models and tags carry the hash, so that features of different settings are never mixed.

The defaults are the front end of the published musicnn models (Pons & Serra, "musicnn: pre-trained convolutional neural
networks for music audio tagging", 2019), so that one features table serves these models and our own.
"""

import dataclasses
import hashlib
import json
from typing import Any, Self

from musictag.errors import UsageError

# Increase it whenever a change of the code changes the cells: resampler, mono mix, padding, cell layout.
FRONT_END_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """Settings of the front end; validated when created."""

    sample_rate: int = 16_000
    """Samples per second after resampling, Hz."""
    n_fft: int = 512
    """Length of the Hann window and of the Fourier transform, samples."""
    hop_length: int = 256
    """Distance between two frames, samples."""
    n_mels: int = 96
    """Number of mel bands, with Slaney's scale and norm as in librosa."""
    fmin: float = 0.0
    """Lower edge of the lowest band, Hz."""
    fmax: float = 8_000.0
    """Upper edge of the highest band, Hz."""
    log_gain: float = 10_000.0
    """Factor `g` of the compression `log10(1 + g * mel)`."""
    clip_frames: int = 187
    """Frames per clip; 187 frames are 3 s."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop_length", "n_mels", "clip_frames"):
            if getattr(self, name) < 1:
                raise UsageError(f"FeatureConfig.{name} is {getattr(self, name)}: it must be at least 1")
        if self.hop_length > self.n_fft:
            raise UsageError(
                f"FeatureConfig.hop_length is {self.hop_length}, above n_fft ({self.n_fft}): some samples would be in "
                "no frame"
            )
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise UsageError(
                f"FeatureConfig.fmin and .fmax are {self.fmin} and {self.fmax} Hz: they must satisfy "
                f"0 <= fmin < fmax <= sample_rate / 2 = {self.sample_rate / 2}"
            )
        if not self.log_gain > 0:
            raise UsageError(f"FeatureConfig.log_gain is {self.log_gain}: it must be positive")

    @property
    def clip_seconds(self) -> float:
        """Length of a clip, s."""
        return self.clip_frames * self.hop_length / self.sample_rate

    @property
    def feature_hash(self) -> str:
        """16 hexadecimal digits that identify the settings and the version of the front end."""
        fingerprint = json.dumps([FRONT_END_VERSION, self.to_dict()], sort_keys=True)
        return hashlib.sha256(fingerprint.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary of numbers."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Return the settings with these fields, the inverse of `to_dict`.

        Raises:
            UsageError: a field does not exist.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise UsageError(f"FeatureConfig has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        return cls(**fields)
