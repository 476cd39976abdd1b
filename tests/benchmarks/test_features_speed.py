"""Time to featurize a four-minute track relative to decoders, librosa and Essentia, on one core.

pip installs Essentia (a pre-release, AGPL, for this comparison only) into a separate environment.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import librosa
import miniaudio
import numpy as np
import pytest
import soundfile
import threadpoolctl

from musictag.audio import mp3, mpg123, reader
from musictag.audio.parts import mapped
from musictag.features.config import FeatureConfig
from musictag.features.extract import track_clips

CONFIG = FeatureConfig()
SECONDS, SAMPLE_RATE = 240, 44_100
ROUNDS = 7
ESSENTIA = "essentia==2.1b6.dev1389"
# Prints the seconds of each round, without imports.
ESSENTIA_SCRIPT = """
import json, sys, time
import essentia, essentia.standard
essentia.log.warningActive = essentia.log.infoActive = False
path, sample_rate, n_fft, hop_length, rounds = sys.argv[1], *map(int, sys.argv[2:])
for _ in range(rounds):
    started = time.process_time()
    waveform = essentia.standard.MonoLoader(filename=path, sampleRate=sample_rate)()
    mel = essentia.standard.TensorflowInputMusiCNN()
    frames = essentia.standard.FrameGenerator(waveform, frameSize=n_fft, hopSize=hop_length, startFromZero=True)
    n_frames = len([mel(frame) for frame in frames])
    print(json.dumps([time.process_time() - started, n_frames]))
"""


@pytest.fixture(scope="module", params=["mp3", "flac", "ogg", "m4a"])
def song(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, write_audio: Callable[..., Path]
) -> Path:
    """A stereo song of changing notes and some noise."""
    rng = np.random.default_rng(0)
    at = np.arange(SAMPLE_RATE)[:, None] / SAMPLE_RATE
    notes = [0.1 * np.sin(2 * np.pi * rng.uniform(100, 4_000, (12, 1, 2)) * at).sum(axis=0) for _ in range(SECONDS)]
    samples = np.concatenate(notes) + 0.005 * rng.standard_normal((SECONDS * SAMPLE_RATE, 2))
    path = tmp_path_factory.mktemp("song") / f"song.{request.param}"
    return write_audio(path, samples.astype(np.float32), SAMPLE_RATE)


@pytest.fixture(scope="module")
def essentia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python interpreter of an environment with Essentia."""
    folder = tmp_path_factory.mktemp("essentia")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", ESSENTIA], check=True)
    return folder / "bin" / "python"


def milliseconds(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the CPU time of each function: the minimum of interleaved rounds after a warm-up round."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS + 1):
        for name, do in functions.items():
            started = time.process_time()
            do()
            taken[name].append(time.process_time() - started)
    return {name: 1000 * min(seconds[1:]) for name, seconds in taken.items()}


def by_soundfile(path: Path) -> None:
    with soundfile.SoundFile(path) as file:
        while len(file.read(1 << 17, dtype="float32")):
            pass


def by_pyav(path: Path) -> None:
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            frame.to_ndarray()


def by_miniaudio(path: Path) -> None:
    for _ in miniaudio.stream_file(
        str(path), miniaudio.SampleFormat.FLOAT32, nchannels=2, sample_rate=SAMPLE_RATE, frames_to_read=1 << 16
    ):
        pass


def by_libmpg123_to_mono(path: Path) -> None:
    library = mpg123.library()
    assert library is not None
    with mapped(path) as data:
        frames = mp3.find_frames(data)
    with soundfile.SoundFile(path) as file, mpg123.open_mp3(library, path, "", file.samplerate, frames) as opened:
        assert opened is not None
        for _ in opened.blocks(0, float("inf"), 1 << 17):
            pass


def by_ours_to_mono(path: Path) -> None:
    with reader.open_audio(path, path.name) as opened:
        for _ in opened.blocks():
            pass


def by_librosa(path: Path) -> None:
    waveform, _ = librosa.load(path, sr=CONFIG.sample_rate)
    mel = librosa.feature.melspectrogram(
        y=waveform, sr=CONFIG.sample_rate, n_fft=CONFIG.n_fft, hop_length=CONFIG.hop_length, n_mels=CONFIG.n_mels
    )
    np.log10(1 + CONFIG.log_gain * mel)


DECODERS = {
    "mp3": [by_soundfile, by_pyav, by_miniaudio] + [by_libmpg123_to_mono] * (mpg123.library() is not None),
    "flac": [by_soundfile, by_pyav, by_miniaudio],
    "ogg": [by_soundfile, by_pyav, by_miniaudio],
    "m4a": [by_pyav],
}


def test_track_time_relative_to_decoders_and_other_libraries(song: Path, essentia: Path) -> None:
    form = song.suffix[1:]
    ways: dict[str, Callable[[], object]] = {way.__name__: lambda way=way: way(song) for way in DECODERS[form]}
    ways["by_ours_to_mono"] = lambda: by_ours_to_mono(song)
    if form != "m4a":  # librosa needs an external program for it
        ways["by_librosa"] = lambda: by_librosa(song)
    ways |= {"whole": lambda: track_clips(song, "song", CONFIG), "ten": lambda: track_clips(song, "song", CONFIG, 10)}
    with threadpoolctl.threadpool_limits(1):
        ms = milliseconds(ways)
    numbers = map(str, (CONFIG.sample_rate, CONFIG.n_fft, CONFIG.hop_length, ROUNDS))
    lines = subprocess.run(
        [essentia, "-c", ESSENTIA_SCRIPT, song, *numbers],
        check=True, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"},
    ).stdout.splitlines()  # fmt: skip
    theirs = [json.loads(line) for line in lines]
    assert {n_frames for _, n_frames in theirs} <= set(range(14_990, 15_010))
    ms["by_essentia"] = 1000 * min(seconds for seconds, _ in theirs)
    fastest = min((way.__name__ for way in DECODERS[form]), key=ms.__getitem__)
    others = {name: ms[name] / ms["whole"] for name in ("by_librosa", "by_essentia") if name in ms}
    sys.stdout.write(
        f"\n{form}, {SECONDS} s: " + ", ".join(f"{name} {value:.0f} ms" for name, value in ms.items()) + f"\n"
        f"whole: {ms['whole'] / ms[fastest]:.2f} of the fastest decoder ({fastest}); "
        + ", ".join(f"{name} {ratio:.2f} times" for name, ratio in others.items())
        + f" of whole; whole {ms['whole'] / ms['ten']:.1f} times of ten clips"
    )
    assert form != "mp3" or others["by_librosa"] >= 1.8
    assert ms["by_essentia"] >= 5 * ms["whole"]
    assert ms["whole"] <= 2 * ms[fastest]
    assert ms["whole"] >= (4.5 if form == "flac" else 6) * ms["ten"]  # FLAC: see ADR 16
