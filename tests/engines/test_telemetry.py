"""No engine reports to its makers what a user runs."""

import subprocess
import sys

PROGRAM = """
from musictag.engines import mlflow_registry, ray_cluster
from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY
from ray._common.usage.usage_lib import usage_stats_enabled
assert MLFLOW_DISABLE_TELEMETRY.get()
assert not usage_stats_enabled()
"""


def test_telemetry_of_mlflow_and_ray_is_off(monkeypatch):
    for name in ("MLFLOW_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
