import os
import shutil
import socket

import pytest

from encoding import SECONDS, encoded
from hostile import FILES
from musictag import errors
from musictag.storage import tables


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """All hostile files, and other entries of a folder that are named like music."""
    folder = tmp_path / "music"
    folder.mkdir()
    for name, (make, _) in FILES.items():
        (folder / name).write_bytes(make())
    for name in PLAYS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(encoded("pcm16.wav"))
    for name in UNLISTED:
        (folder / name).write_bytes(encoded("pcm16.wav"))
    (folder / "empty.mp3").touch()
    (folder / "loop.mp3").symlink_to("loop.mp3")
    (folder / "to-each-other-1.mp3").symlink_to("to-each-other-2.mp3")
    (folder / "to-each-other-2.mp3").symlink_to("to-each-other-1.mp3")
    (folder / "dangling.mp3").symlink_to("nowhere.mp3")
    (folder / "up").symlink_to("..")
    (folder / "within.mp3" / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.mp3")
    monkeypatch.chdir(folder)  # the address of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.mp3")
    (folder / "no-permission.wav").write_bytes(encoded("pcm16.wav"))
    (folder / "no-permission.wav").chmod(0)
    shutil.copy(folder / "linked-to.wav", folder / os.fsdecode(b"caf\xe9.wav"))
    (folder / "link.wav").symlink_to("linked-to.wav")
    return folder


PLAYS = (
    "within.mp3/track.wav",
    "linked-to.wav",
    "\N{MUSICAL NOTE} \N{HIRAGANA LETTER A}.wav",
    "e\N{COMBINING ACUTE ACCENT}.wav",
    "\N{GREEK SMALL LETTER ALPHA}" * 125 + ".wav",  # 254 bytes
    " a b#c?d%41:e|f'g\"h,i;j*[k].wav",
    "-rf.wav",
    "SHOUTED.WAV",
)
UNLISTED = (".hidden.wav", "notes.txt")
UNREACHABLE = "loop.mp3", "to-each-other-1.mp3", "to-each-other-2.mp3", "pipe.mp3", "socket.mp3"
FAIL = {"empty.mp3": ("decode", "AudioEmptyError")}
FAIL["dangling.mp3"] = ("fetch", "AudioMissingError")
FAIL |= dict.fromkeys(UNREACHABLE, ("fetch", "AudioUnreachableError"))


def test_each_hostile_file_is_a_row_or_the_expected_failure(tmp_path, folder, featurize_here, capsys):
    (folder / "new\nline.wav").write_bytes(encoded("pcm16.wav"))
    table = str(tmp_path / "features")
    assert featurize_here("--catalog", folder, "--features", table, "--max-failures", 1) == 0
    rows = tables.read_columns(table, ("track_id", "duration_s")).to_pylist()
    found = {row["track_id"]: row["duration_s"] for row in rows}
    failures = tables.read_columns(f"{table}-failures", ("track_id", "stage", "error")).to_pylist()
    failed = {row["track_id"]: (row["stage"], row["error"]) for row in failures}
    assert len(found) == len(rows)
    assert len(failed) == len(failures)
    n_listed = len(rows) + len(failures)
    assert f"{n_listed} listed = {len(rows)} written + 0 unchanged + {len(failures)} failed" in capsys.readouterr().out

    assert failed.pop("new\nline.wav") == ("catalog", "CatalogError")
    assert failed.pop("caf\\udce9.wav") == ("catalog", "CatalogError")
    is_readable = os.access(folder / "no-permission.wav", os.R_OK)  # root reads everything
    assert ("no-permission.wav" in found) == is_readable
    assert failed.pop("no-permission.wav", None) == (None if is_readable else ("fetch", "AudioUnreachableError"))
    found.pop("no-permission.wav", None)

    outcomes = {name: outcome for name, (_, outcome) in FILES.items()}
    good = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, float)}
    assert found == pytest.approx(good | dict.fromkeys(PLAYS, SECONDS), abs=0.1)  # without the second name of a file
    assert {name: failed.pop(name) for name in FAIL} == FAIL
    assert set(failed) == set(outcomes) - set(good)
    for name, (stage, error) in failed.items():
        assert stage == "decode"
        assert issubclass(getattr(errors, error), outcomes[name])
