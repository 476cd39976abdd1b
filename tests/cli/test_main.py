import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from musictag.cli.main import CLIPS_PER_TRACK, entry
from musictag.features import extract
from musictag.features.table import encode_clips
from musictag.models.published import pretrained
from musictag.tagging.tagger import Tagger


@pytest.fixture(scope="module")
def songs(tmp_path_factory, music, write_audio):
    """Good tracks of many kinds."""
    folder = tmp_path_factory.mktemp("songs")
    kinds = [("a.mp3", 7.0, 44_100, 2), ("b/half a second, 2.wav", 0.5, 44_100, 2), ("b/c.wav", 1.0, 8_000, 1),
             ("d.m4a", 2.0, 44_100, 2), ("e.wav", 1.0, 48_000, 6), ("爵士.ogg", 3.5, 44_100, 2)]  # fmt: skip
    for seed, (name, seconds, sample_rate, channels) in enumerate(kinds):
        (folder / name).parent.mkdir(exist_ok=True)
        write_audio(folder / name, music(seconds, sample_rate, channels, seed), sample_rate)
    write_audio(folder / "silence.flac", np.zeros((96_000, 2), np.float32), 96_000, "PCM_24")
    (folder / "cover.jpg").write_bytes(b"not music")
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory, music, write_audio):
    """Bad input of every kind, by the words of its error."""
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
               "nan.wav": "NaN or infinity", "header.wav": "no audio frame",
               "caf\\xe9.wav": "the file name is not UTF-8"}  # fmt: skip
    return folder, reasons


def expected(path, clips_per_track=CLIPS_PER_TRACK, model=pretrained.DEFAULT, top=5):
    """The tags that the tagging job would give."""
    tagger = Tagger.load(pretrained.find(model))
    config = tagger.spec.feature_config
    clips, starts, duration_s = extract.track_clips(path, "a", config, clips_per_track)
    start_s = [start * config.hop_length / config.sample_rate for start in starts]
    row = {"clips": encode_clips(clips), "start_s": start_s, "duration_s": duration_s}
    (scores,) = tagger.track_scores([row])
    return sorted(zip(tagger.spec.vocabulary, scores.tolist(), strict=True), key=lambda pair: -pair[1])[:top]


def run(capsys, *argv):
    code = entry([str(argument) for argument in argv])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def assert_tags(tags, wanted):
    assert [tag["tag"] for tag in tags] == [tag for tag, _ in wanted]
    assert [tag["score"] for tag in tags] == pytest.approx([score for _, score in wanted], abs=0.002)


def test_json_is_an_object_a_line_in_order_with_the_tags_of_the_tagging_job(capsys, songs):
    code, out, err = run(capsys, "tag", songs, "--json")
    assert (code, err) == (0, "")
    entries = [json.loads(line) for line in out.splitlines()]
    names = ["a.mp3", "b/c.wav", "b/half a second, 2.wav", "d.m4a", "e.wav", "silence.flac", "爵士.ogg"]
    assert [entry["file"] for entry in entries] == [str(songs / name) for name in names]
    assert all(list(entry) == ["file", "tags"] and len(entry["tags"]) == 5 for entry in entries)
    assert "爵士" in out
    for place in (0, 2):
        assert_tags(entries[place]["tags"], expected(songs / names[place]))


@pytest.mark.parametrize("model", ["mtt-musicnn", "msd-vgg"])
def test_model_top_and_clips_are_what_was_asked_for(capsys, songs, model):
    code, out, _ = run(capsys, "tag", songs / "a.mp3", "--json", "--model", model, "--top", 3, "--clips-per-track", 1)
    assert code == 0
    assert_tags(json.loads(out)["tags"], expected(songs / "a.mp3", 1, model, 3))


def test_csv_has_a_row_for_each_tag(capsys, songs):
    files = [songs / "a.mp3", songs / "b/half a second, 2.wav"]
    code, out, err = run(capsys, "tag", *files, "--csv", "--top", 2)
    assert (code, err) == (0, "")
    assert out.startswith("file,tag,score,error\n")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["file"] for row in rows] == [str(file) for file in files for _ in range(2)]
    assert {row["error"] for row in rows} == {""}
    for file, of_file in zip(files, (rows[:2], rows[2:]), strict=True):
        assert_tags([{**row, "score": float(row["score"])} for row in of_file], expected(file, top=2))


def test_a_person_sees_tags_and_bars(capsys, songs):
    code, out, err = run(capsys, "tag", songs / "a.mp3")
    assert (code, err) == (0, "")
    name, *lines, blank = out.splitlines()
    assert (name, blank, len(lines)) == (str(songs / "a.mp3"), "", 5)
    for line, (tag, score) in zip(lines, expected(songs / "a.mp3"), strict=True):
        assert float(line.split()[0]) == pytest.approx(score, abs=0.007)
        assert line[34:] == tag
        full = line.count("█")
        assert line[8 : 8 + full] == "█" * full
        assert -0.1 < 24 * score - full < 1.1


def test_bad_files_are_a_line_each_and_the_rest_goes_on(capsys, songs, broken):
    folder, reasons = broken
    missing = folder / "missing.mp3"
    argv = ("tag", folder, songs / "e.wav", missing, songs / "b/c.wav", "--top", 1)
    code, out, err = run(capsys, *argv)
    assert code == 1
    assert [line for line in out.splitlines() if line.startswith("/")] == [str(songs / "e.wav"), str(songs / "b/c.wav")]
    *lines, last = err.splitlines()
    assert last == "error: 7 of 9 files could not be tagged"
    told = dict(line.split(": ", 1) for line in lines)
    assert set(told) == {*(f"{folder}/{name}" for name in reasons), str(missing)}
    for name, reason in reasons.items():
        assert reason in told[f"{folder}/{name}"]
    assert "No such file" in told[str(missing)]

    code, out, err = run(capsys, *argv, "--json")
    assert (code, err) == (1, f"{last}\n")
    entries = {entry["file"]: entry for entry in map(json.loads, out.splitlines())}
    assert {name: entry["error"] for name, entry in entries.items() if "error" in entry} == told
    assert all(set(entry) in ({"file", "tags"}, {"file", "error"}) for entry in entries.values())

    code, out, err = run(capsys, *argv, "--csv")
    assert (code, err) == (1, f"{last}\n")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["file"]: row["error"] for row in rows if row["error"]} == told
    assert [(row["tag"] == "", row["score"] == "") for row in rows] == [(bool(row["error"]),) * 2 for row in rows]


def test_a_folder_without_music_is_an_error(capsys, tmp_path):
    code, out, err = run(capsys, "tag", tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(f"{tmp_path}: the folder holds no audio file (")
    assert err.endswith("error: 1 of 1 file could not be tagged\n")


def test_many_files_have_a_progress_bar_on_a_terminal_that_leaves_the_lines_alone(capsys, songs, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    code, out, err = run(capsys, "tag", songs / "b", "--json")
    assert code == 0
    assert [json.loads(line)["file"] for line in out.splitlines()] == [
        str(songs / "b/c.wav"), str(songs / "b/half a second, 2.wav")
    ]  # fmt: skip
    assert "2/2" in err
    assert "2/2" not in run(capsys, "tag", songs / "e.wav", "--json")[2]


@pytest.mark.parametrize("command", [["tag", "a.mp3"], ["taggram", "a.mp3", "-o", "a.png"]])
def test_an_unknown_model_lists_those_there_are(capsys, command):
    code, out, err = run(capsys, *command, "--model", "mtt-musicn")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    for part in ("'mtt-musicn'", *pretrained.PUBLISHED, "folder", "models:/"):
        assert part in err


def test_a_folder_is_a_model_and_a_broken_one_is_named(capsys, songs, tmp_path):
    folder = Path(shutil.copytree(pretrained.find("mtt-vgg"), tmp_path / "mine"))
    argv = ("tag", songs / "e.wav", "--json", "--model")
    code, out, _ = run(capsys, *argv, folder)
    assert code == 0
    assert out == run(capsys, *argv, "mtt-vgg")[1]
    (folder / "weights.safetensors").write_bytes(b"broken")
    code, out, err = run(capsys, *argv, folder)
    assert (code, out) == (1, "")
    assert f"{folder}/weights.safetensors cannot be read" in err
    assert "holds no tagger.json" in run(capsys, *argv, songs)[2]


def test_models_that_are_not_installed_say_how(capsys, songs, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "folder", lambda: tmp_path)
    code, out, err = run(capsys, "tag", songs / "e.wav")
    assert (code, out) == (1, "")
    assert "run `musictag weights`" in err


def test_a_wheel_that_is_none_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "folder", lambda: tmp_path / "models")
    (tmp_path / "musicnn.whl").write_bytes(b"something else")
    code, out, err = run(capsys, "weights", tmp_path / "musicnn.whl")
    assert (code, out) == (1, "")
    assert "is not the wheel of musicnn==0.1.0" in err
    assert not (tmp_path / "models").exists()


def test_installed_weights_say_where_they_lie(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "install", lambda wheel: [tmp_path / "msd-vgg"] if wheel is None else [])
    code, out, _ = run(capsys, "weights")
    assert code == 0
    assert "msd-vgg" in out
    assert str(pretrained.folder()) in out


@pytest.mark.parametrize(
    "argv",
    [[], ["tag"], ["tag", "a", "--top", "0"], ["tag", "a", "--csv", "--json"], ["tag", "a", "--clips-per-track", "x"],
     ["taggram", "a"], ["register"], ["sing"]],
)  # fmt: skip
def test_bad_usage_exits_with_2(capsys, argv):
    with pytest.raises(SystemExit) as caught:
        entry(argv)
    assert caught.value.code == 2
    assert "usage: musictag" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.mp3", "b/half a second, 2.wav"])
def test_a_taggram_is_a_picture_of_all_clips(capsys, songs, tmp_path, name):
    code, out, err = run(capsys, "taggram", songs / name, "-o", tmp_path / "made/a.png", "--top", 4)
    assert (code, err) == (0, "")
    assert out == f"4 tags over {'7.0 s in 3' if name == 'a.mp3' else '0.5 s in 1'} clips; {tmp_path}/made/a.png\n"
    assert imread(tmp_path / "made/a.png").shape[1] == 1800


def test_a_taggram_that_cannot_be_made_says_why(capsys, songs, broken, tmp_path):
    code, _, err = run(capsys, "taggram", songs / "e.wav", "-o", tmp_path / "a.gif")
    assert (code, err) == (2, f"error: -o {tmp_path}/a.gif: the picture's name must end in .png, .svg, .pdf\n")
    (tmp_path / "file").touch()
    code, _, err = run(capsys, "taggram", songs / "e.wav", "-o", tmp_path / "file/a.png")
    assert code == 1
    assert err.startswith(f"error: {tmp_path}/file/a.png: cannot be written: ")
    code, _, err = run(capsys, "taggram", broken[0] / "text.mp3", "-o", tmp_path / "a.png")
    assert (code, (tmp_path / "a.png").exists()) == (1, False)
    assert err.startswith(f"error: {broken[0]}/text.mp3: not audio")


def test_the_first_registered_model_becomes_champion_and_stays_it(capsys, songs, tmp_path, empty_mlflow, monkeypatch):
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    for _ in range(2):
        code, out, _ = run(capsys, "register", "msd-musicnn")
        assert code == 0
        assert "msd-musicnn is version 1 of musictag" in out
        assert "it is the champion" in out
    code, out, _ = run(capsys, "register", "mtt-vgg")
    assert code == 0
    assert "mtt-vgg is version 2 of musictag" in out
    assert "the champion is version 1" in out
    assert "promote.py --model models:/musictag/2 --force --reason" in out
    argv = ("tag", songs / "e.wav", "--json", "--model")
    assert run(capsys, *argv, "models:/musictag@champion")[1] == run(capsys, *argv, "msd-musicnn")[1]
    assert run(capsys, *argv, "models:/musictag/2")[1] == run(capsys, *argv, "mtt-vgg")[1]
    code, _, err = run(capsys, *argv, "models:/musictag/3")
    assert code == 1
    assert err.startswith("error: model models:/musictag/3: ")


def test_the_command_speaks_utf8_in_any_locale_and_one_line_of_each_bad_file(songs, broken):
    command = [sys.executable, "-m", "musictag", "tag", "--json"]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}
    files = [songs / "爵士.ogg", *sorted(broken[0].iterdir())]
    done = subprocess.run([*command, *files], check=False, capture_output=True, env=environment)
    assert done.returncode == 1
    entries = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert entries[0]["file"] == str(songs / "爵士.ogg")
    assert "error" not in entries[0]
    assert done.stderr.decode() == "error: 6 of 7 files could not be tagged\n"


def test_a_song_is_tagged_soon_without_what_only_other_commands_need_and_ends_when_nobody_listens(songs):
    code = (
        "import sys; from musictag.cli.main import entry; code = entry();"
        "heavy = {'mlflow', 'matplotlib', 'sklearn', 'numba', 'librosa', 'pandas', 'ray'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", code, "tag", songs / "a.mp3"]
    done = subprocess.run(command, check=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
