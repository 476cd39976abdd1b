import os

import numpy as np
import pytest

from musictag.cli.main import entry


@pytest.fixture
def run(capsys):
    """A function that runs `musictag` with some arguments and returns exit code, output and errors."""

    def run_command(*argv):
        code = entry([str(argument) for argument in argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run_command


@pytest.fixture(scope="session")
def songs(tmp_path_factory, music, write_audio):
    """A folder of readable tracks in several formats."""
    folder = tmp_path_factory.mktemp("songs")
    kinds = [("a.mp3", 7.0, 44_100, 2), ("b/half a second, 2.wav", 0.5, 44_100, 2), ("b/c.wav", 1.0, 8_000, 1),
             ("d.m4a", 2.0, 44_100, 2), ("e.wav", 1.0, 48_000, 6), ("爵士.ogg", 3.5, 44_100, 2)]  # fmt: skip
    for seed, (name, seconds, sample_rate, channels) in enumerate(kinds):
        (folder / name).parent.mkdir(exist_ok=True)
        write_audio(folder / name, music(seconds, sample_rate, channels, seed), sample_rate)
    write_audio(folder / "silence.flac", np.zeros((96_000, 2), np.float32), 96_000, "PCM_24")
    (folder / "cover.jpg").write_bytes(b"not music")
    return folder


@pytest.fixture(scope="session")
def broken(tmp_path_factory, music, write_audio):
    """A folder of unreadable files, and the words of their errors by file name."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "empty.mp3").touch()
    (folder / "text.mp3").write_text("the lyrics of a song\n" * 100)
    cut = write_audio(folder / "truncated.mp3", music(5.0), 44_100)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 6 // 10])
    samples = music(1.0)
    samples[20_000, 1] = np.nan
    write_audio(folder / "nan.wav", samples, 44_100, "FLOAT")
    write_audio(folder / "header.wav", np.zeros((0, 2), np.float32), 44_100)
    latin = write_audio(folder / "latin.wav", music(1.0), 44_100)
    latin.rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.wav"))
    reasons = {"empty.mp3": "the file is empty", "text.mp3": "not audio", "truncated.mp3": "truncated",
               "nan.wav": "NaN, infinity", "header.wav": "no audio frame",
               "caf\\xe9.wav": "the file name is not UTF-8"}  # fmt: skip
    return folder, reasons
