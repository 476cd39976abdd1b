import json
import os
import subprocess
import sys

import pytest

import musictag
from musictag.cli.main import entry

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("argv", [[], ["--help"]])
def test_help_lists_the_commands_and_exits_with_0(capsys, argv):
    with pytest.raises(SystemExit) as caught:
        entry(argv)
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("usage: musictag ")
    for command in ("tag", "taggram", "weights", "register", "verify", "rollback", "vacuum", "compact"):
        assert f"\n    {command} " in out


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        entry(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr() == (f"musictag {musictag.__version__}\n", "")


@pytest.mark.parametrize(
    "argv",
    [["tag"], ["tag", "a", "--top", "0"], ["tag", "a", "--csv", "--json"], ["tag", "a", "--clips-per-track", "x"],
     ["taggram", "a"], ["register"], ["sing"]],
)  # fmt: skip
def test_bad_usage_exits_with_2(capsys, argv):
    with pytest.raises(SystemExit) as caught:
        entry(argv)
    assert caught.value.code == 2
    assert "usage: musictag" in capsys.readouterr().err


def test_output_is_utf8_in_any_locale(songs, broken):
    command = [sys.executable, "-m", "musictag", "tag", "--json"]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}
    files = [songs / "爵士.ogg", *sorted(broken[0].iterdir())]
    done = subprocess.run([*command, *files], check=False, capture_output=True, env=environment)
    assert done.returncode == 1
    entries = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert entries[0]["file"] == str(songs / "爵士.ogg")
    assert "error" not in entries[0]
    assert done.stderr.decode() == "error: 6 of 7 files could not be tagged\n"


def test_tag_imports_no_heavy_module_and_ends_when_its_reader_is_gone(songs):
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
    assert (done.returncode, done.stderr) == (141, b"")
