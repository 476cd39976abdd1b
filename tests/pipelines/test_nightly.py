"""A night as a scheduler runs it: the jobs that are needed, the housekeeping, the summary."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from musictag.errors import ConflictError
from musictag.features.table import SCHEMA
from musictag.jobs import maintenance
from musictag.jobs.night_config import read_config
from musictag.models.published import pretrained
from musictag.storage import tables
from nights import Library

pytestmark = pytest.mark.slow


@pytest.fixture
def library(tmp_path: Path, write_audio, music, empty_mlflow: Path) -> Library:
    pretrained.find("mtt-musicnn")
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    return Library(tmp_path, write_audio, music)


def test_nights_do_what_is_left_within_their_budget_and_then_nothing(library: Library) -> None:
    library.add("a", "b", "c")
    library.configure("[budget]\nmax_tracks = 2\n")
    out, _, summary = library.night()
    assert summary["succeeded"]
    assert summary["nights_left"] == 1
    assert "the rest needs 1 more night" in out
    assert len(library.tagged()) == 2
    _, _, summary = library.night()
    assert library.tagged() == {"a", "b", "c"}
    assert summary["jobs"]["tag"]["written"] == 1
    started = time.monotonic()
    out, err, summary = library.night()
    assert time.monotonic() - started < 60
    assert [job["was_needed"] for job in summary["jobs"].values()] == [False, False]
    assert "tag: nothing to do, 3 unchanged, 0 failed" in out
    assert "ray" not in err  # no engine was started
    assert 'musictag_night_tracks{job="tag",outcome="unchanged"} 3.0' in (library.folder / "night.prom").read_text()
    for table in ("features", "tags"):
        assert maintenance.verify(str(library.folder / table)).problems == ()


def test_failed_job_is_in_the_summary_and_the_others_run(library: Library) -> None:
    library.add("a")
    (library.songs / "empty.flac").touch()
    library.configure("[featurize]\noptions = ['--runner=DirectRunner', '--max-failures=0']\n")
    _, err, summary = library.night(code=1)
    assert err.splitlines()[-1].startswith("error: not everything succeeded: featurize (exit code 1)")
    assert summary["jobs"]["featurize"]["failed_by_error"] == {"AudioEmptyError": 1}
    assert (summary["succeeded"], summary["jobs"]["tag"]["written"]) == (False, 1)
    assert library.tagged() == {"a"}


def test_catalog_that_has_shrunk_and_a_missing_model_are_one_sentence_each(library: Library) -> None:
    library.add("a", "b", "c")
    library.configure("[featurize]\noptions = ['--prune']\n")
    library.night()
    for name in ("a", "b"):
        (library.songs / f"{name}.flac").unlink()
    library.configure("[featurize]\noptions = ['--prune']\n", model="models:/musictag@champion")
    out, err, summary = library.night(code=1)
    assert "not listed any more: 2 tracks, kept, because they are more than --prune-limit 0.1 allows" in out
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "2 of the 3 tracks in" in errors[0]
    assert "model models:/musictag@champion: " in errors[1]
    assert errors[2].startswith("error: not everything succeeded: featurize (exit code 1), tag (exit code 1)")
    assert not summary["succeeded"]
    assert "no report" not in out
    assert library.tagged() == {"a", "b", "c"}


def test_command_of_a_job_gets_the_script_and_its_options(library: Library) -> None:
    library.add("a")
    wrapper = library.folder / "on-a-cluster"
    wrapper.write_text(f'#!/bin/sh\necho "engine starts"\n"{sys.executable}" "$@"\necho "engine ends"\n')
    wrapper.chmod(0o755)
    library.configure(f"[featurize]\ncommand = ['{wrapper}']\n[tag]\ncommand = ['{library.folder}/nothing']\n")
    out, _, summary = library.night(code=1)
    assert summary["jobs"]["featurize"]["written"] == 1
    assert "engine starts" in out
    assert f"{library.folder}/nothing: cannot be started: No such file or directory" in out
    assert summary["jobs"]["tag"] == {"exit_code": 127, "was_needed": True}
    out, _, _ = library.night(code=1)
    assert "engine starts" not in out  # the plan has shown that nothing is to do


def test_table_that_another_night_changes_is_left_to_the_next(
    library: Library,
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def compact(uri: str) -> None:
        raise ConflictError(f"table {uri}: another run removed a.parquet meanwhile: run again")

    tables.create_table(str(library.folder / "features"), SCHEMA)
    monkeypatch.setattr(maintenance, "compact", compact)
    assert script("nightly").keep_house(read_config(library.config)) == []
    assert "features: not joined, because another run changes it; the next night does it" in capsys.readouterr().out


def test_wrong_settings_exit_2(library: Library) -> None:
    library.config.write_text("catlog = 'x'\n")
    process = library.start()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert err == f"error: --config {library.config}: catlog is no setting; did you mean catalog?\n"
