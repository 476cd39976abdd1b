"""The commands that look after tables."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from musictag.cli.main import entry
from musictag.storage import parts, tables

SCHEMA = pa.schema([("track_id", pa.string()), ("n", pa.int32())])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    table = tmp_path / "table"
    tables.create_table(str(table), SCHEMA)
    for part in "ab":
        parts.write(str(table), part, SCHEMA, [{"track_id": part, "n": 1}])
    return table


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = entry([str(argument) for argument in argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_verify_says_that_a_table_is_whole(capsys: pytest.CaptureFixture[str], table: Path) -> None:
    assert run(capsys, "verify", table) == (0, f"2 files, 2 rows, all as they were written; {table}\n", "")


def test_verify_says_what_is_wrong_and_exits_with_1(capsys: pytest.CaptureFixture[str], table: Path) -> None:
    lost = next(table.glob("*.parquet"))
    lost.write_bytes(lost.read_bytes() + b"x")
    (table.parent / "catalog.csv").write_text("track_id,uri\na,a.wav\n")
    code, out, err = run(capsys, "verify", table, "--catalog", table.parent / "catalog.csv")
    assert (code, out) == (1, f"{lost.name}: changed since it was written\n")
    assert err == f"error: table {table}: 1 problem in 2 files, see above\n"


def test_rollback_lists_versions_and_returns_to_one(capsys: pytest.CaptureFixture[str], table: Path) -> None:
    code, out, _ = run(capsys, "rollback", table)
    assert code == 0
    assert re.findall(r"^ +(\d)  ", out, re.M) == ["2", "1", "0"]
    assert run(capsys, "rollback", table, 1)[0] == 0
    assert tables.track_ids(str(table)) == {"a"}
    code, _, err = run(capsys, "rollback", table, 17)
    assert (code, err) == (1, f"error: table {table}: is at version 3 and has no earlier version 17\n")


def test_vacuum_removes_what_a_killed_writer_left(capsys: pytest.CaptureFixture[str], table: Path) -> None:
    (table / "part-killed.parquet").write_bytes(b"half a file")
    assert run(capsys, "vacuum", table)[1] == f"0 files removed; {table}\n"
    assert run(capsys, "vacuum", table, "--keep-hours", 0)[1] == f"1 file removed; {table}\n"
    assert run(capsys, "verify", table)[0] == 0


@pytest.mark.parametrize("argv", [("vacuum", "t", "--keep-hours", "-1"), ("rollback", "t", "x"), ("verify",)])
def test_what_means_nothing_exits_with_2(argv: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as exit_:
        entry(list(argv))
    assert exit_.value.code == 2


def test_no_table_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for command in ("verify", "vacuum", "rollback"):
        code, _, err = run(capsys, command, tmp_path / "none")
        assert code == 1
        assert err == f"error: table {tmp_path}/none: there is none; has the job that writes it run?\n"
