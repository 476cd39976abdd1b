import shlex
import subprocess
import sys

import pytest

from musictag import errors
from musictag.jobs.entry_point import run_main


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
    assert "what is committed stays" in capsys.readouterr().err


def run_python(program: str, redirection: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program whose main function is `main(argv)` in a shell."""
    program = f"import sys\nfrom musictag.jobs.entry_point import run_main\n{program}\nsys.exit(run_main(main))"
    command = f"{shlex.join([sys.executable, '-c', program])} {redirection}"
    return subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_sigterm_exits_with_143_and_ends_what_the_body_began(tmp_path):
    program = f"""
import contextlib, os, signal, pathlib, time
@contextlib.contextmanager
def run():
    try:
        yield
    finally:
        pathlib.Path({str(tmp_path / "ended")!r}).touch()
def main(argv):
    with run():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(50)
"""
    ended = run_python(program)
    assert (ended.returncode, ended.stderr.partition(";")[0]) == (143, "stopped by SIGTERM")
    assert (tmp_path / "ended").exists()


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error_and_no_file_gets_their_place(tmp_path, closed):
    path = tmp_path / "opened"
    program = f"""
import os, pathlib
from musictag.jobs.progress import echo
def main(argv):
    echo("a line")
    print("an error", file=sys.stderr)
    with open({str(path)!r}, "w") as file:
        os.write(1, b"of a C library"), os.write(2, b"of a C library")
        file.write(str(file.fileno() > 2))
"""
    assert run_python(program, closed).returncode == 0
    assert path.read_text() == "True"


@pytest.mark.slow
def test_reader_that_ends_early_is_no_traceback():
    program = """
def main(argv):
    for n in range(100_000):
        print(n)
"""
    ended = run_python(program, "| head -1; echo ${PIPESTATUS[0]}")
    assert (ended.stdout.split()[0], ended.stderr) == ("0", "")


def test_other_broken_pipes_are_raised():
    def main(argv):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_main(main, [])


# In the background of a shell, SIGINT is ignored from the start.
DEFAULT_SIGINT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
READS_A_CATALOG = """
import os, signal, sys
import pyarrow as pa
from musictag.jobs.entry_point import run_main
from musictag.storage import queries

def batches():
    os.kill(os.getpid(), signal.{signal})
    yield pa.record_batch({{"track_id": ["a"]}})

def main(argv):
    with queries.connect() as connection:
        rows = pa.RecordBatchReader.from_batches(pa.schema([("track_id", pa.string())]), batches())
        queries.load(connection, "listed", rows)

sys.exit(run_main(main, []))
"""
RUNS_A_QUERY = """
import os, signal, sys, threading
from musictag.jobs.entry_point import run_main
from musictag.storage import queries

def main(argv):
    with queries.connect() as connection:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.{signal})).start()
        connection.execute("SELECT count(*) FROM range(100000000) a(n) JOIN range(100000000) b(n) USING (n)")

sys.exit(run_main(main, []))
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [READS_A_CATALOG, RUNS_A_QUERY])
@pytest.mark.parametrize(
    ("signal", "code", "sentence"), [("SIGTERM", 143, "stopped by SIGTERM"), ("SIGINT", 130, "stopped")]
)
def test_signal_in_a_query_is_no_failed_query(program, signal, code, sentence):
    command = [sys.executable, "-c", f"{DEFAULT_SIGINT}\n{program.format(signal=signal)}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (ended.returncode, ended.stderr.partition(";")[0]) == (code, sentence)
