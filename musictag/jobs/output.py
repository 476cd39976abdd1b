"""The output of a run: a table with a row for each track, and a table of failures."""

import dataclasses

import pyarrow as pa

from musictag.storage import tables


@dataclasses.dataclass(frozen=True)
class Output:
    """The table that a run writes. All rows of a run have the same producer."""

    uri: str
    """An absolute path or a URL, because workers have other folders."""
    schema: pa.Schema
    """Its columns."""
    time_column: str
    """The column with the time at which a row was made."""
    producer: str
    """Hash of the settings, or digest of the model, that produces the rows."""

    @property
    def failures_uri(self) -> str:
        """The table of the tracks that failed."""
        return tables.companion_uri(self.uri, "failures")

    @property
    def plan_uri(self) -> str:
        """The folder of the plans of runs."""
        return plan_uri(self.uri)


def plan_uri(uri: str) -> str:
    """Return the folder of the plans of runs that write the table at `uri`."""
    return tables.absolute(tables.companion_uri(uri, "plan"))
