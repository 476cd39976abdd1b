"""The commands that maintain tables: `musictag verify`, `rollback`, `vacuum` and `compact`."""

import argparse

from musictag.cli import options
from musictag.errors import LedgerError
from musictag.jobs import maintenance, progress

KEEP_HOURS = 7 * 24
MAX_VERSIONS = 20
"""Versions that `rollback` lists."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `verify`, `rollback`, `vacuum` and `compact` to the commands of a parser."""
    verify = commands.add_parser(
        "verify", help="check that no file of a table is missing or has changed, and that each track has one row"
    )
    verify.add_argument(
        "--catalog", help="also check that each track of this catalog is in the table or among its failures"
    )
    options.add_follow_links(verify)
    verify.set_defaults(run=run_verify)

    rollback = commands.add_parser(
        "rollback", help="return a table to an earlier version; without VERSION, list its versions"
    )
    rollback.set_defaults(run=run_rollback)

    vacuum = commands.add_parser("vacuum", help="remove files that no recent version of a table needs")
    vacuum.add_argument(
        "--keep-hours", type=options.number(int, minimum=0), default=KEEP_HOURS, metavar="N",
        help="keep the files of versions that are at most N hours old (default: %(default)s)",
    )  # fmt: skip
    vacuum.set_defaults(run=run_vacuum)

    compact = commands.add_parser(
        "compact", help="join the small files of a table, so that it is read faster; earlier versions stay"
    )
    compact.set_defaults(run=run_compact)
    for command in (verify, rollback, vacuum, compact):
        command.add_argument("table", type=options.location, metavar="TABLE", help="path or URL, such as data/features")
    rollback.add_argument("version", type=int, nargs="?", metavar="VERSION")


def run_verify(args: argparse.Namespace) -> None:
    """Print the problems of a table. Raises `LedgerError` at the end if there are any."""
    found = maintenance.verify(args.table, args.catalog, follow_links=args.follow_links)
    n_files = progress.counted(found.n_files, "file")
    for problem in found.problems:
        progress.echo(problem)
    if found.problems:
        problems = progress.counted(len(found.problems), "problem")
        raise LedgerError(f"table {args.table}: {problems} in {n_files}, see above")
    progress.echo(f"{n_files}, {progress.counted(found.n_rows, 'row')}, all as they were written; {args.table}")


def run_rollback(args: argparse.Namespace) -> None:
    """List the versions of a table, or return to one."""
    if args.version is None:
        progress.echo("\n".join(maintenance.history(args.table, MAX_VERSIONS)))
        progress.echo(f"to return to a version: musictag rollback {args.table} VERSION")
        return
    maintenance.roll_back(args.table, args.version)
    progress.echo(f"the newest version now has the content of version {args.version}; {args.table}")


def run_vacuum(args: argparse.Namespace) -> None:
    """Remove the files that no recent version of a table needs."""
    removed = maintenance.vacuum(args.table, args.keep_hours)
    progress.echo(f"{progress.counted(len(removed), 'file')} removed; {args.table}")


def run_compact(args: argparse.Namespace) -> None:
    """Join the small files of a table."""
    done = maintenance.compact(args.table)
    before, after = progress.counted(done.n_before, "file"), progress.counted(done.n_after, "file")
    progress.echo(f"{before} before, {after} now; {args.table} (musictag vacuum removes the old ones later)")
