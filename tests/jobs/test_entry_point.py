import os

import pytest

from musictag import errors
from musictag.jobs.entry_point import n_cores, run_main


def test_success_exits_with_0(capsys):
    seen = []
    assert run_main(seen.append, ["--a", "b"]) == 0
    assert seen == [["--a", "b"]]
    assert capsys.readouterr().err == ""


def test_arguments_come_from_the_command_line(monkeypatch):
    seen = []
    monkeypatch.setattr("sys.argv", ["program", "--a"])
    assert run_main(seen.append) == 0
    assert seen == [["--a"]]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError, 2),
        (errors.VocabularyError, 2),
        (errors.CatalogError, 2),
        (errors.FeatureMismatchError, 1),
        (errors.StoreError, 1),
        (errors.ModelError, 1),
        (errors.TrainingError, 1),
        (errors.RegistryError, 1),
        (errors.PromotionError, 1),
        (errors.LedgerError, 1),
        (errors.AudioCorruptError, 1),
    ],
)
def test_musictag_error_is_printed_in_one_line_with_its_exit_code(capsys, error, code):
    def main(argv):
        raise error("what is wrong: what to do")

    assert run_main(main, []) == code
    assert capsys.readouterr().err == "error: what is wrong: what to do\n"


def test_other_errors_are_raised():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_main(main, [])


def test_interrupt_exits_with_130(capsys):
    def main(argv):
        raise KeyboardInterrupt

    assert run_main(main, []) == 130
    assert "committed rows are kept" in capsys.readouterr().err


def test_n_cores_is_at_most_the_cores_of_the_machine():
    assert 1 <= n_cores() <= os.cpu_count()
