import functools
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
import soundfile

from musictag.errors import AudioCrashError, AudioTimeoutError, AudioUnsupportedError, StoreError
from musictag.features import extract
from musictag.features.config import FeatureConfig
from musictag.features.decoder_process import DecoderProcess
from musictag.jobs.featurizing import TRACKS_AHEAD, featurize_tasks
from musictag.jobs.plan import Task
from processes import command_line

CONFIG = FeatureConfig()


@pytest.fixture(scope="module")
def others() -> frozenset[int]:
    """Processes that were there before, such as the decoder that scripts of other tests share."""
    return frozenset(process.pid for process in psutil.Process().children(recursive=True))


@pytest.fixture(scope="module")
def sandbox(others) -> Iterator[DecoderProcess]:
    with DecoderProcess() as sandbox:
        yield sandbox


def decoders(others: frozenset[int]) -> list[psutil.Process]:
    """The processes that decode, which are named so by multiprocessing."""
    children = [child for child in psutil.Process().children(recursive=True) if child.pid not in others]
    return [child for child in children if "multiprocessing.spawn" in command_line(child)]


def test_clips_are_those_of_this_process(sandbox, tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.mp3", music(7.0), 44_100)
    for n_clips in (None, 2):
        clips, starts, duration_s = sandbox.track_clips(path, "a", CONFIG, n_clips)
        here, starts_here, duration_s_here = extract.track_clips(path, "a", CONFIG, n_clips)
        np.testing.assert_array_equal(clips, here)
        assert (starts, duration_s) == (starts_here, duration_s_here)


def test_an_error_of_the_audio_comes_back_as_it_was(sandbox, tmp_path):
    (tmp_path / "a.mp3").write_text("the lyrics of a song")
    with pytest.raises(AudioUnsupportedError, match="a song: not audio"):
        sandbox.track_clips(tmp_path / "a.mp3", "a song", CONFIG)


def test_one_process_decodes_one_track_after_another(sandbox, others, tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    seen = set()
    for _ in range(3):
        sandbox.track_clips(path, "a", CONFIG)
        seen |= {process.pid for process in decoders(others)}
    assert len(seen) == 1


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_decoder_that_crashes_costs_one_track(sandbox, others, tmp_path, music, write_audio, number):
    os.mkfifo(tmp_path / "hangs.mp3")  # opened, it waits for ever: time enough to end the process
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    sandbox.track_clips(path, "a", CONFIG)
    (process,) = decoders(others)
    threading.Timer(1, process.send_signal, [number]).start()
    with pytest.raises(AudioCrashError, match=rf"hangs: the decoder crashed \(exit code -{number:d}\)"):
        sandbox.track_clips(tmp_path / "hangs.mp3", "hangs", CONFIG)
    assert sandbox.track_clips(path, "a", CONFIG)[1] == [0]


def test_a_decoder_that_is_killed_between_tracks_costs_none(sandbox, others, tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    for _ in range(2):
        sandbox.track_clips(path, "a", CONFIG)
        (process,) = decoders(others)
        process.kill()
        time.sleep(1)  # not `wait`, which would take the exit code from the pool
        assert sandbox.track_clips(path, "a", CONFIG)[1] == [0]


def test_a_decoder_that_hangs_costs_one_track(tmp_path, music, write_audio):
    os.mkfifo(tmp_path / "hangs.mp3")
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    with DecoderProcess(time_limit_s=2) as sandbox:
        sandbox.track_clips(path, "a", CONFIG)
        started = time.perf_counter()
        with pytest.raises(AudioTimeoutError, match="hangs: not decoded within 2 s"):
            sandbox.track_clips(tmp_path / "hangs.mp3", "hangs", CONFIG)
        assert time.perf_counter() - started < 6
        assert sandbox.track_clips(path, "a", CONFIG)[1] == [0]


def test_nothing_is_left_of_a_closed_sandbox(others, tmp_path, music, write_audio):
    before = {process.pid for process in decoders(others)}
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    with DecoderProcess() as sandbox:
        sandbox.track_clips(path, "a", CONFIG)
        assert {process.pid for process in decoders(others)} > before
    assert {process.pid for process in decoders(others)} == before


def test_a_track_that_takes_too_much_memory_costs_itself(tmp_path):
    for name, seconds in (("long", 3_600), ("short", 1)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(seconds * 8_000, np.float32), 8_000)
    with DecoderProcess(memory_limit_gib=0.0625) as sandbox:
        assert sandbox.track_clips(tmp_path / "short.wav", "short", CONFIG)[1] == [0]
        with pytest.raises(AudioCrashError, match=r"long: decoding takes more than 0\.0625 GiB of memory"):
            sandbox.track_clips(tmp_path / "long.wav", "long", CONFIG)
        assert sandbox.track_clips(tmp_path / "short.wav", "short", CONFIG)[1] == [0]


def test_a_full_folder_for_temporary_files_is_said_so(tmp_path, music, write_audio, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", functools.partial(open, "/dev/full", "r+b"))
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    with (
        DecoderProcess() as sandbox,
        pytest.raises(StoreError, match="No space left on device; name another by TMPDIR"),
    ):
        sandbox.track_clips(path, "a", CONFIG)


def test_tracks_come_back_in_order_each_as_a_row_or_a_failure(tmp_path, music, write_audio):
    write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    (tmp_path / "b.wav").write_text("the lyrics of a song")
    works = [Task(str(n), str(tmp_path / ("b.wav" if n == 2 else "a.wav")), None) for n in range(6)]
    outcomes = list(featurize_tasks(works, CONFIG))
    assert [row and row["track_id"] for row, _ in outcomes] == ["0", "1", None, "3", "4", "5"]
    assert [failure and failure["error"] for _, failure in outcomes] == [
        None,
        None,
        "AudioUnsupportedError",
        *[None] * 3,
    ]


def test_few_tracks_are_at_hand_together(tmp_path, music, write_audio):
    path = str(write_audio(tmp_path / "a.wav", music(1.0), 44_100))
    taken = []
    rows = featurize_tasks((taken.append(n) or Task(str(n), path, None) for n in range(9)), CONFIG)
    for n in range(6):
        assert next(rows)[0]["track_id"] == str(n)
        assert len(taken) == n + 1 + TRACKS_AHEAD
    rows.close()
    assert len(taken) == 6 + TRACKS_AHEAD
