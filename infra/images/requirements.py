"""Print the dependencies of a pyproject.toml, one a line: requirements.py PYPROJECT [EXTRA...]."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
extras = [line for extra in sys.argv[2:] for line in project["optional-dependencies"][extra]]
sys.stdout.write("\n".join([*project["dependencies"], *extras]) + "\n")
