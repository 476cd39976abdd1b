import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from musictag.cli.main import entry
from musictag.storage import commits, tables

Run = Callable[..., tuple[int, str, str]]

SCHEMA = pa.schema([("track_id", pa.string()), ("n", pa.int32())])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    table = tmp_path / "table"
    tables.create_table(str(table), SCHEMA)
    for part in "ab":
        commits.append_rows(str(table), SCHEMA, [{"track_id": part, "n": 1}])
    return table


def test_verify_accepts_an_intact_table(run: Run, table: Path) -> None:
    assert run("verify", table) == (0, f"2 files, 2 rows, all as they were written; {table}\n", "")


@pytest.mark.parametrize("begin", ["file://localhost", "file://", "file:"])
def test_table_is_found_as_browsers_and_shells_write_its_place(
    run: Run, table: Path, begin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run("verify", table)
    assert run("verify", f"{begin}{table}") == expected
    monkeypatch.setenv("HOME", str(table.parent))
    assert run("verify", "~/table") == expected


def test_verify_prints_problems_and_exits_with_1(run: Run, table: Path) -> None:
    lost = next(table.glob("*.parquet"))
    lost.write_bytes(lost.read_bytes() + b"x")
    (table.parent / "catalog.csv").write_text("track_id,uri\na,a.wav\n")
    code, out, err = run("verify", table, "--catalog", table.parent / "catalog.csv")
    assert (code, out) == (1, f"{lost.name}: changed since it was written\n")
    assert err == f"error: table {table}: 1 problem in 2 files, see above\n"


def test_rollback_lists_versions_and_returns_to_one(run: Run, table: Path) -> None:
    code, out, _ = run("rollback", table)
    assert code == 0
    assert re.findall(r"^ +(\d)  ", out, re.M) == ["2", "1", "0"]
    assert run("rollback", table, 1)[0] == 0
    assert tables.track_ids(str(table)) == {"a"}
    code, _, err = run("rollback", table, 17)
    assert (code, err) == (1, f"error: table {table} is at version 3: there is no earlier version 17\n")


def test_vacuum_removes_the_file_of_a_killed_writer(run: Run, table: Path) -> None:
    (table / "part-killed.parquet").write_bytes(b"half a file")
    assert run("vacuum", table)[1] == f"0 files removed; {table}\n"
    assert run("vacuum", table, "--keep-hours", 0)[1] == f"1 file removed; {table}\n"
    assert run("verify", table)[0] == 0


def test_compact_joins_small_files(run: Run, table: Path) -> None:
    assert run("compact", table)[1].startswith(f"2 files before, 1 file now; {table} ")
    assert run("verify", table)[0] == 0
    assert tables.track_ids(str(table)) == tables.track_ids(str(table), 2)


@pytest.mark.parametrize("argv", [("vacuum", "t", "--keep-hours", "-1"), ("rollback", "t", "x"), ("verify",)])
def test_invalid_arguments_exit_with_2(argv: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as exit_:
        entry(list(argv))
    assert exit_.value.code == 2


def test_missing_table_is_an_error(run: Run, tmp_path: Path) -> None:
    for command in ("verify", "vacuum", "rollback", "compact"):
        code, _, err = run(command, tmp_path / "none")
        assert code == 1
        assert err == f"error: table {tmp_path}/none: there is none; has the job that writes it run?\n"
