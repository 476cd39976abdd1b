"""`python -m musictag` is the command `musictag`."""

import sys

from musictag.cli.main import entry

if __name__ == "__main__":
    sys.exit(entry())
