"""The limits of one run: a number of tracks, and a time at which it stops. The next run does the rest."""

import contextlib
import dataclasses
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING

from musictag.storage.repeating import repeating

if TYPE_CHECKING:  # options of commands need no database
    import duckdb

    from musictag.jobs.plan_files import PlanFiles

WORK_TO_DO = 3
"""Exit code of `--plan-only` if there is something to do."""
_POLL_S = 1.0


@dataclasses.dataclass(frozen=True)
class Budget:
    """How many tracks a run may process, and until when workers may begin further parts."""

    max_tracks: int | None = None
    deadline: datetime.datetime | None = None
    """By the clock of the driver's machine, with a time zone."""

    @property
    def is_over(self) -> bool:
        """Return whether the deadline has passed."""
        return self.deadline is not None and datetime.datetime.now(datetime.UTC) >= self.deadline

    @contextlib.contextmanager
    def stopping(self, plan: "PlanFiles") -> Iterator[None]:
        """Tell the workers at the deadline to begin no further part, while the body runs."""
        if self.deadline is None:
            yield
            return

        def stop() -> float:
            if self.is_over:
                plan.stop()
            return _POLL_S

        with repeating(stop, _POLL_S, "deadline"):
            yield


def defer_tasks(connection: "duckdb.DuckDBPyConnection", max_tracks: int) -> int:
    """Set the state of all but `max_tracks` tasks of the table `plan` to `deferred`; return their number.

    Tasks whose row is only of another model come last, so that a new champion does not delay new tracks. Before them
    come tasks that failed before, of which some may fail in every run.
    """
    connection.execute(_DEFER, {"max_tracks": max_tracks})
    return count_deferred(connection)


def defer_unprocessed(connection: "duckdb.DuckDBPyConnection") -> None:
    """Set the state of the tasks without an outcome (see `ledger`) to `deferred`, after a run that was stopped."""
    connection.execute(_DEFER_UNPROCESSED)
    connection.execute("DELETE FROM outcomes WHERE outcome = 'lost'")


def count_deferred(connection: "duckdb.DuckDBPyConnection") -> int:
    """Return the number of deferred tracks."""
    ((n,),) = connection.execute("SELECT count(*) FROM plan WHERE state = 'deferred'").fetchall()
    return int(n)


_DEFER = """
UPDATE plan SET state = 'deferred' WHERE track_id IN (
    SELECT track_id FROM plan WHERE state = 'task'
    QUALIFY row_number() OVER (ORDER BY is_backfill, attempts, number) > $max_tracks
)
"""
_DEFER_UNPROCESSED = """
UPDATE plan SET state = 'deferred'
WHERE state = 'task' AND track_id IN (SELECT track_id FROM outcomes WHERE outcome = 'lost')
"""
