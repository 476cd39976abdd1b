"""Add files to Delta tables and remove files from them, each change in one transaction.

Workers never commit. Adding a file that the table has already changes nothing, so that a commit may be
repeated whose response was lost.
"""

import functools
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from musictag.errors import ConflictError
from musictag.storage.data_files import DataFile, write_rows
from musictag.storage.folders import store_errors
from musictag.storage.retry import retry
from musictag.storage.tables import delta_table, is_transient

Result = TypeVar("Result")

# Concurrent writers conflict in the table's log, which costs a retry of some milliseconds: deltalake repeats a commit
# where another one only added files, and we repeat it where another one removed some.
_MAX_COMMITS = 100
# A change that has to be determined again after a conflict takes longer.
_MAX_CONFLICTS = 10
# Maximum pause before a commit is repeated after a conflict, s.
_MAX_CONFLICT_PAUSE_S = 0.2


def append_rows(uri: str, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows and add them to the table at `uri`; return their number. Nothing is committed if `rows` raises."""
    files = write_rows(uri, schema, rows)
    add_files(uri, schema, files)
    return sum(file.n_rows for file in files)


def add_files(
    uri: str,
    schema: pa.Schema,
    files: Sequence[DataFile],
    transactions: Mapping[str, int] | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Add files to the table at `uri`.

    Args:
        uri: the table.
        schema: its columns.
        files: written files.
        transactions: numbers that are recorded with the files by name, see `recorded_numbers`.
        info: what the table's history says of the commit besides.
    """
    if files or transactions:
        commit(uri, schema, [_add(file, data_change=True) for file in files], transactions, info)


def replace_files(
    uri: str, schema: pa.Schema, old: Sequence[DataFile], new: Sequence[DataFile], *, same_rows: bool = False
) -> None:
    """Remove the `old` files from the table at `uri` and add the `new` ones; both stay in the folder until a vacuum.

    With `same_rows`, readers of changes are told that no row changed.

    Raises:
        ConflictError: another writer removed one of the old files meanwhile.
    """
    now_ms = int(time.time() * 1000)
    removed = [RemoveAction(file.path, not same_rows, now_ms, file.size, {}) for file in old]
    commit(uri, schema, [*removed, *(_add(file, data_change=not same_rows) for file in new)])


def recorded_numbers(uri: str, names: Iterable[str]) -> dict[str, int]:
    """Return the numbers that `add_files` recorded last under these names; names without a number are missing."""
    with store_errors(uri):
        table = delta_table(uri)
        numbers = {name: table.transaction_version(name) for name in names}
    return {name: int(number) for name, number in numbers.items() if number is not None}


def repeat_after_conflicts(change: Callable[[], Result], look_again: Callable[[], None]) -> Result:
    """Return the result of `change`, which changes a table; after a conflict, call `look_again` and repeat it.

    Raises `ConflictError` if there is a conflict each time.
    """
    for _ in range(_MAX_CONFLICTS - 1):
        try:
            return change()
        except ConflictError:
            look_again()
    return change()


def commit(
    uri: str,
    schema: pa.Schema,
    actions: Sequence[AddAction | RemoveAction],
    transactions: Mapping[str, int] | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Commit actions in one transaction, repeating it after transient errors of the store and commits of others.

    Raises:
        ConflictError: a file to remove is not in the table any more, or a number was recorded meanwhile; perhaps by
            this very commit, if its response was lost.
    """
    removed = {action.path for action in actions if isinstance(action, RemoveAction)}
    numbers = dict(transactions or {})
    for attempt in range(_MAX_COMMITS):
        with store_errors(uri):
            try:
                retry(functools.partial(_commit, uri, schema, list(actions), removed, numbers, info), is_transient)
            except CommitFailedError:
                # deltalake lets a transaction fail if another one removed any file, whichever it was.
                if attempt == _MAX_COMMITS - 1:
                    raise
                time.sleep(random.uniform(0, _MAX_CONFLICT_PAUSE_S))  # noqa: S311
                continue
        return


def _commit(
    uri: str,
    schema: pa.Schema,
    actions: list[AddAction | RemoveAction],
    removed: AbstractSet[str],
    numbers: Mapping[str, int],
    info: Mapping[str, Any] | None,
) -> None:
    table: DeltaTable = delta_table(uri)
    if removed and (gone := removed - _paths(table)):
        raise ConflictError(f"table {uri}: another run removed {min(gone)} meanwhile: run again")
    for name, number in numbers.items():
        if (recorded := table.transaction_version(name)) is not None and recorded >= number:
            raise ConflictError(f"table {uri}: another run committed {name} meanwhile: run again")
    now_ms = int(time.time() * 1000)
    properties = CommitProperties(
        custom_metadata=dict(info or {}),
        app_transactions=[Transaction(name, number, now_ms) for name, number in numbers.items()],
        max_commit_retries=_MAX_COMMITS,
    )
    table.create_write_transaction(actions, mode="append", schema=schema, commit_properties=properties)


def _paths(table: DeltaTable) -> set[str]:
    return set(pa.table(table.get_add_actions())["path"].to_pylist())


def _add(file: DataFile, *, data_change: bool) -> AddAction:
    return AddAction(
        path=file.path,
        size=file.size,
        partition_values={},
        modification_time=int(time.time() * 1000),
        data_change=data_change,
        stats=json.dumps({"numRecords": file.n_rows}),
    )
