import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from musictag.errors import (
    AudioCrashError,
    AudioDecoderBugError,
    AudioTimeoutError,
    AudioUnreachableError,
    AudioUnsupportedError,
    StoreError,
    WorkerLostError,
)
from musictag.features import extract
from musictag.features.config import FeatureConfig
from musictag.features.decoder_process import CHILD_MODULE, DecoderProcess
from processes import command_line, is_running

pytestmark = pytest.mark.slow

CONFIG = FeatureConfig()


@pytest.fixture(scope="module")
def other_pids() -> frozenset[int]:
    """Child processes of earlier tests, such as the shared decoder of scripts."""
    return frozenset(process.pid for process in psutil.Process().children(recursive=True))


@pytest.fixture(scope="module")
def decoder(other_pids) -> Iterator[DecoderProcess]:
    with DecoderProcess() as decoder:
        yield decoder


def child_processes(other_pids: frozenset[int]) -> list[psutil.Process]:
    """Return the child processes that decode."""
    children = [child for child in psutil.Process().children(recursive=True) if child.pid not in other_pids]
    return [child for child in children if CHILD_MODULE in command_line(child)]


def test_clips_equal_those_of_track_clips(decoder, tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.mp3", music(7.0), 44_100)
    for n_clips in (None, 2):
        clips, starts, duration_s, _ = decoder.track_clips(path, "a", CONFIG, n_clips)
        here, starts_here, duration_s_here, _ = extract.track_clips(path, "a", CONFIG, n_clips)
        np.testing.assert_array_equal(clips, here)
        assert (starts, duration_s) == (starts_here, duration_s_here)


def test_audio_error_is_raised_unchanged(decoder, tmp_path):
    (tmp_path / "a.mp3").write_text("the lyrics of a song")
    with pytest.raises(AudioUnsupportedError, match="a song: not audio"):
        decoder.track_clips(tmp_path / "a.mp3", "a song", CONFIG)


def test_any_other_error_of_a_decoder_is_a_bug_that_costs_one_track(decoder, tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    with pytest.raises(AudioDecoderBugError, match=r"^a song: a bug of a decoder.*: TypeError: .* \(\w+\.py:\d+\)"):
        decoder.track_clips(path, "a song", CONFIG, "two")
    assert decoder.track_clips(path, "a", CONFIG)[1] == [0]


def test_missing_file_is_unreachable(decoder, tmp_path):
    with pytest.raises(AudioUnreachableError, match="a song: cannot be read: No such file"):
        decoder.track_clips(tmp_path / "a.mp3", "a song", CONFIG)


def test_one_process_decodes_all_tracks(decoder, other_pids, tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    seen = set()
    for _ in range(3):
        decoder.track_clips(path, "a", CONFIG)
        seen |= {process.pid for process in child_processes(other_pids)}
    assert len(seen) == 1


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_crash_costs_one_track(decoder, other_pids, tmp_path, music, write_audio, number):
    os.mkfifo(tmp_path / "hangs.mp3")  # opening it blocks forever
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    decoder.track_clips(path, "a", CONFIG)
    (process,) = child_processes(other_pids)
    threading.Timer(1, process.send_signal, [number]).start()
    with pytest.raises(AudioCrashError, match=rf"hangs: the decoder crashed \(exit code -{number:d}\)"):
        decoder.track_clips(tmp_path / "hangs.mp3", "hangs", CONFIG)
    assert decoder.track_clips(path, "a", CONFIG)[1] == [0]


def test_crash_between_tracks_costs_no_track(decoder, other_pids, tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    for _ in range(2):
        decoder.track_clips(path, "a", CONFIG)
        (process,) = child_processes(other_pids)
        process.kill()
        time.sleep(1)  # `wait` would take the exit code from `decoder`
        assert decoder.track_clips(path, "a", CONFIG)[1] == [0]


def test_timeout_costs_one_track(tmp_path, music, write_audio):
    os.mkfifo(tmp_path / "hangs.mp3")
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    with DecoderProcess(time_limit_s=2) as decoder:
        decoder.track_clips(path, "a", CONFIG)
        started = time.perf_counter()
        with pytest.raises(AudioTimeoutError, match="hangs: not decoded within 2 s"):
            decoder.track_clips(tmp_path / "hangs.mp3", "hangs", CONFIG)
        assert time.perf_counter() - started < 6
        assert decoder.track_clips(path, "a", CONFIG)[1] == [0]


def test_closed_decoder_leaves_no_process(other_pids, tmp_path, music, write_audio):
    before = {process.pid for process in child_processes(other_pids)}
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    with DecoderProcess() as decoder:
        decoder.track_clips(path, "a", CONFIG)
        assert {process.pid for process in child_processes(other_pids)} > before
    assert {process.pid for process in child_processes(other_pids)} == before


def test_memory_limit_costs_one_track(tmp_path):
    for name, seconds in (("long", 3_600), ("short", 1)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(seconds * 8_000, np.float32), 8_000)
    with DecoderProcess(memory_limit_gib=0.0625) as decoder:
        assert decoder.track_clips(tmp_path / "short.wav", "short", CONFIG)[1] == [0]
        with pytest.raises(AudioCrashError, match=r"long: decoding needs more than 0\.0625 GiB of memory"):
            decoder.track_clips(tmp_path / "long.wav", "long", CONFIG)
        assert decoder.track_clips(tmp_path / "short.wav", "short", CONFIG)[1] == [0]


def test_temporary_file_that_cannot_be_written_is_a_store_error(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with DecoderProcess() as decoder:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (30_000, hard)
        )  # the child process inherits it; a clip has 35,904 bytes
        try:
            with pytest.raises(StoreError, match="File too large; set TMPDIR to another folder"):
                decoder.track_clips(path, "a", CONFIG)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_interrupted_request_does_not_answer_the_next(decoder, tmp_path, music, write_audio, monkeypatch):
    paths = [write_audio(tmp_path / f"{n}.wav", music(float(n)), 44_100) for n in (1, 8)]

    def interrupt(*arguments):
        raise KeyboardInterrupt

    decoder.track_clips(paths[0], "a", CONFIG)
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "poll", interrupt)
        with pytest.raises(KeyboardInterrupt):
            decoder.track_clips(paths[1], "b", CONFIG)
    assert decoder.track_clips(paths[0], "a", CONFIG).duration_s == 1


def decode_to_pipe(path, pipe):
    with DecoderProcess() as decoder:
        pipe.send(decoder.track_clips(path, "a", CONFIG)[1])


def test_daemonic_process_may_decode(tmp_path, music, write_audio):
    """As the workers of Dask are, and those may have no children of `multiprocessing`."""
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=decode_to_pipe, args=(path, theirs), daemon=True)
    worker.start()
    assert ours.poll(60)
    assert ours.recv() == [0]
    worker.join()


HANGING_PARENT = """
import sys
from pathlib import Path
from musictag.features.decoder_process import DecoderProcess
from musictag.features.config import FeatureConfig
decoder = DecoderProcess()
for path in sys.argv[1:]:
    decoder.track_clips(Path(path), path, FeatureConfig())
    print("decoded", flush=True)
"""


def test_child_that_hangs_ends_with_its_killed_parent(tmp_path, music, write_audio):
    os.mkfifo(tmp_path / "hangs.mp3")
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    command = [sys.executable, "-c", HANGING_PARENT, str(path), str(tmp_path / "hangs.mp3")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"decoded\n"
        (child,) = psutil.Process(parent.pid).children()
        time.sleep(0.5)
        parent.kill()
    deadline = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_child_that_cannot_be_started_is_an_error_of_one_sentence(tmp_path, monkeypatch):
    for executable in ("/bin/false", str(tmp_path / "none")):
        monkeypatch.setattr(sys, "executable", executable)
        with DecoderProcess() as decoder, pytest.raises(WorkerLostError, match="decodes audio does not start") as error:
            decoder.track_clips(tmp_path / "a.wav", "a", CONFIG)
        assert "\n" not in str(error.value)


def test_decoder_has_no_credentials_in_its_environment(tmp_path, music, write_audio, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a secret")
    with DecoderProcess() as decoder:
        decoder.track_clips(write_audio(tmp_path / "a.wav", music(1.0), 44_100), "a.wav", CONFIG)
        environment = psutil.Process(decoder._child.process.pid).environ()
    assert "a secret" not in environment.values()
    assert "PYTHONPATH" in environment


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_decoder_is_confined(tmp_path, music, write_audio):
    with DecoderProcess() as decoder:
        decoder.track_clips(write_audio(tmp_path / "a.mp3", music(1.0), 44_100), "a.mp3", CONFIG)
        status = Path(f"/proc/{decoder._child.process.pid}/status").read_text()
    assert "Seccomp:\t2\n" in status  # a filter
    assert "NoNewPrivs:\t1\n" in status
