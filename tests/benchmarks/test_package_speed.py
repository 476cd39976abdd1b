"""Time from a file to its scores relative to the musicnn package, which runs with TensorFlow in a separate environment.

pip fetches 300 MB for it. The package computes in float16, which overflows with current numpy; the timed copy computes
in float32.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictag.cli import local_files
from musictag.cli.file_commands import calibrated_scores
from musictag.jobs import progress
from musictag.models.published import conversion, pretrained
from musictag.tagging.tagger import Tagger

SONG_S, SAMPLE_RATE = 240, 44_100
ROUNDS = 3
MAX_RELATIVE_TIME = 1 / 3
MAX_DIFFERENCE = 0.01
"""Of joined scores: decoders and resamplers differ, and so does the treatment of the last, partial clip."""
NEEDED = ("tensorflow-cpu==2.21.0", "tf_keras==2.21.0", "librosa==0.11.0")

# Prints the seconds and the mean scores of each round, without imports.
PACKAGE = """
import inspect, json, sys, time, types
import musicnn.extractor
source = inspect.getsource(musicnn.extractor)
assert source.count("np.float16") == 1
patched = types.ModuleType("patched")
patched.__file__ = musicnn.extractor.__file__  # the weights lie beside it
exec(source.replace("np.float16", "np.float32"), patched.__dict__)
for _ in range(int(sys.argv[3])):
    started = time.perf_counter()
    scores, tags = patched.extractor(sys.argv[1], model=sys.argv[2], extract_features=False)
    taken = time.perf_counter() - started
    print(json.dumps([taken, dict(zip(tags, scores.mean(axis=0).tolist()))]))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python interpreter of an environment with the package."""
    folder = tmp_path_factory.mktemp("package")
    wheel = conversion.fetch_wheel(folder)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDED], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    return python


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MP3 of four minutes: notes and noise."""
    path = tmp_path_factory.mktemp("song") / "song.mp3"
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, bitrate_mode="CONSTANT", compression_level=0.2) as stream:
        for _ in range(SONG_S):
            note = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 900) * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
            stream.write((note[:, None] + 0.02 * rng.standard_normal((SAMPLE_RATE, 2))).astype(np.float32))
    return path


@pytest.mark.parametrize("name", ["msd-musicnn", "mtt-musicnn"])
def test_song_takes_a_third_of_the_packages_time(name: str, package: Path, song: Path) -> None:
    code = [package, "-c", PACKAGE, song, pretrained.PUBLISHED[name].checkpoint, str(ROUNDS)]
    env = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    lines = subprocess.run(code, check=True, capture_output=True, text=True, env=env).stdout.splitlines()
    theirs = [json.loads(line) for line in lines if line.startswith("[")]
    tagger, taken = Tagger.load(pretrained.find(name)), []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        _, scores = calibrated_scores(tagger, local_files.read(song, tagger.spec.feature_config))
        taken.append(time.perf_counter() - started)
    slow, fast = min(seconds for seconds, _ in theirs), min(taken)
    difference = max(abs(theirs[0][1][tag] - score) for tag, score in zip(tagger.spec.vocabulary, scores, strict=True))
    progress.echo(
        f"\n{name}, {SONG_S} s of MP3: package {slow:.1f} s, musictag {fast:.2f} s, ratio {fast / slow:.2f}; "
        f"largest difference of a score {difference:.4f}"
    )
    assert difference <= MAX_DIFFERENCE
    assert fast <= MAX_RELATIVE_TIME * slow
