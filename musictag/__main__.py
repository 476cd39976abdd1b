"""`python -m musictag` is the command `musictag`."""

import sys

from musictag.cli.main import entry

sys.exit(entry())
