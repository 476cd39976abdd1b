"""The command `musictag`: tag your own files in seconds, on one machine, without an engine.

musictag tag song.mp3
musictag tag music/ --json > tags.jsonl
musictag taggram song.mp3 -o song.png
musictag weights
musictag register msd-musicnn
musictag verify data/features
musictag rollback data/tags
musictag vacuum data/features
musictag compact data/features
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence

import musictag
from musictag.cli import file_commands, model_commands, table_commands
from musictag.jobs.entry_point import open_missing_streams, run_main


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command and its options. Without arguments, print the help and exit with 0."""
    parser = argparse.ArgumentParser(
        prog="musictag", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {musictag.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    file_commands.add_commands(commands)
    model_commands.add_commands(commands)
    table_commands.add_commands(commands)
    return parser.parse_args(argv or ["--help"])


def main(argv: list[str]) -> None:
    """Run one command."""
    args = parse(argv)
    args.run(args)


def entry(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code. Standard output is UTF-8 in every locale."""
    open_missing_streams()
    if argv is None:
        _keep_stderr()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    return run_main(main, argv)


def _keep_stderr() -> None:
    """Reserve standard error for Python: libsndfile's MP3 decoder writes a line there for every damaged file."""
    ours = os.dup(sys.stderr.fileno())
    sys.stderr = os.fdopen(ours, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
