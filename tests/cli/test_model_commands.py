import shutil
import sys
from pathlib import Path

import pytest

from musictag.models.published import pretrained

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("command", [["tag", "a.mp3"], ["taggram", "a.mp3", "-o", "a.png"]])
def test_unknown_model_lists_known_models(run, command):
    code, out, err = run(*command, "--model", "mtt-musicn")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    for part in ("'mtt-musicn'", *pretrained.PUBLISHED, "folder", "models:/"):
        assert part in err


def test_model_can_be_a_folder_and_a_broken_one_is_named(run, songs, tmp_path):
    folder = Path(shutil.copytree(pretrained.find("mtt-vgg"), tmp_path / "mine"))
    argv = ("tag", songs / "e.wav", "--json", "--model")
    code, out, _ = run(*argv, folder)
    assert code == 0
    assert out == run(*argv, "mtt-vgg")[1]
    (folder / "weights.safetensors").write_bytes(b"broken")
    code, out, err = run(*argv, folder)
    assert (code, out) == (1, "")
    assert f"{folder}/weights.safetensors cannot be read" in err
    assert "holds no tagger.json" in run(*argv, songs)[2]


def test_missing_published_models_name_the_command_to_fetch_them(run, songs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    code, out, err = run("tag", songs / "e.wav")
    assert (code, out) == (1, "")
    assert "run `musictag weights`" in err


def test_wrong_wheel_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "musicnn.whl").write_bytes(b"something else")
    code, out, err = run("weights", tmp_path / "musicnn.whl")
    assert (code, out) == (1, "")
    assert "is not the wheel of musicnn==0.1.0" in err
    assert not (tmp_path / "share").exists()


def test_first_registered_model_becomes_and_stays_champion(run, songs, tmp_path, empty_mlflow, monkeypatch):
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    for _ in range(2):
        code, out, _ = run("register", "msd-musicnn")
        assert code == 0
        assert "msd-musicnn is version 1 of musictag" in out
        assert "it is the champion" in out
    code, out, _ = run("register", "mtt-vgg")
    assert code == 0
    assert "mtt-vgg is version 2 of musictag" in out
    assert "the champion is version 1" in out
    assert "promote.py --model models:/musictag/2 --force --reason" in out
    argv = ("tag", songs / "e.wav", "--json", "--model")
    assert run(*argv, "models:/musictag@champion")[1] == run(*argv, "msd-musicnn")[1]
    assert run(*argv, "models:/musictag/2")[1] == run(*argv, "mtt-vgg")[1]
    code, _, err = run(*argv, "models:/musictag/3")
    assert code == 1
    assert err.startswith("error: model models:/musictag/3: ")
