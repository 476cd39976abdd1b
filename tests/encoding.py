"""Short sounds in every format with an encoder, from which hostile files and the fuzzer's seeds are made."""

import functools
import io
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile

SECONDS, RATE = 2.0, 44_100

# Formats that libsndfile writes: container and subtype.
BY_SOUNDFILE = {
    "pcm8.wav": ("WAV", "PCM_U8"),
    "pcm16.wav": ("WAV", "PCM_16"),
    "pcm24.wav": ("WAV", "PCM_24"),
    "pcm32.wav": ("WAV", "PCM_32"),
    "float.wav": ("WAV", "FLOAT"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "wavex.wav": ("WAVEX", "PCM_16"),
    "rf64.wav": ("RF64", "PCM_24"),
    "plain.aiff": ("AIFF", "PCM_16"),
    "plain.caf": ("CAF", "PCM_16"),
    "plain.au": ("AU", "PCM_16"),
    "plain.flac": ("FLAC", "PCM_16"),
    "plain.mp3": ("MP3", "MPEG_LAYER_III"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "plain.opus": ("OGG", "OPUS"),
}
# The same by suffix.
SOUNDFILE_OF_SUFFIX = {
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".wav": ("WAV", "PCM_16"),
    ".aiff": ("AIFF", "PCM_16"),
    ".au": ("AU", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
}
# Formats that FFmpeg writes: container, codec and options of the container.
BY_FFMPEG: dict[str, tuple[str, str, dict[str, str]]] = {
    "plain.m4a": ("mp4", "aac", {}),
    "faststart.m4a": ("mp4", "aac", {"movflags": "faststart"}),
    "fragmented.m4a": ("mp4", "aac", {"movflags": "frag_every_frame+empty_moov+default_base_moof"}),
    "alac.m4a": ("mp4", "alac", {}),
    "adts.aac": ("adts", "aac", {}),
    "plain.wma": ("asf", "wmav2", {}),
    "plain.mka": ("matroska", "flac", {}),
    "noxing.mp3": ("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}),
    "flac.ogg": ("ogg", "flac", {}),
}
SIXTEEN_BITS = {"wavpack": "s16p", "tta": "s16"}
FORMATS = (*BY_SOUNDFILE, *BY_FFMPEG)


def sound(seconds: float = SECONDS, sample_rate: int = RATE, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Return three tones and soft noise: float32 (samples, channels)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    tones = sum(np.sin(2 * np.pi * frequency * time) for frequency in rng.uniform(100, 3_000, 3))
    return (0.1 * tones[:, None] + 0.01 * rng.standard_normal((len(time), channels))).astype(np.float32)


@functools.cache
def encoded(name: str, seconds: float = SECONDS, sample_rate: int = RATE, channels: int = 2, seed: int = 0) -> bytes:
    """Return the bytes of a sound encoded in one of `FORMATS`."""
    sample_rate = 48_000 if name == "plain.opus" else sample_rate
    samples = sound(seconds, sample_rate, channels, seed)
    if name in BY_SOUNDFILE:
        return by_soundfile(samples, sample_rate, *BY_SOUNDFILE[name])
    return by_ffmpeg(samples, sample_rate, *BY_FFMPEG[name])


def by_soundfile(samples: np.ndarray, sample_rate: int, container: str, subtype: str) -> bytes:
    """Encode samples (samples, channels) by libsndfile."""
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", sample_rate, samples.shape[1], subtype, format=container) as file:
        # libsndfile crashes when one long block is written to Ogg.
        for begin in range(0, len(samples), sample_rate):
            file.write(samples[begin : begin + sample_rate])
    return stream.getvalue()


def by_ffmpeg(
    samples: np.ndarray,
    sample_rate: int,
    container: str,
    codec: str,
    options: dict[str, str],
    layout: str | None = None,
    bit_rate: int | None = None,
) -> bytes:
    """Encode samples (samples, channels) by FFmpeg; more than 2 channels need a `layout` such as `5.1`."""
    layout = layout or ("mono" if samples.shape[1] == 1 else "stereo")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound"  # a file, because FFmpeg reads its output to move the index to the front
        with av.open(str(path), "w", format=container, container_options=options) as file:
            track = file.add_stream(codec, rate=sample_rate, layout=layout)
            if codec in SIXTEEN_BITS:  # FFmpeg would take the first format that the encoder has, of 8 bits
                track.format = SIXTEEN_BITS[codec]
            track.bit_rate = bit_rate or (128_000 if sample_rate > 16_000 else 32_000)
            resampler = av.AudioResampler(format=track.format, layout=layout, rate=sample_rate)
            # Not planar: PyAV reads beyond its list of planes if there are more than seven.
            frame = av.AudioFrame.from_ndarray(samples.astype(np.float32).reshape(1, -1), format="flt", layout=layout)
            frame.sample_rate, frame.pts = sample_rate, 0
            parts = av.AudioFifo()
            for part in resampler.resample(frame):
                parts.write(part)
            track.codec_context.open(strict=False)
            while part := parts.read(track.frame_size or 4_096) or parts.read():
                file.mux(track.encode(part))
            file.mux(track.encode(None))
        return path.read_bytes()
