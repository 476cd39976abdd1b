import subprocess
import sys

import pytest
from apache_beam.options.pipeline_options import DirectOptions

from musictag.engines import beam_runner
from musictag.errors import StoreError
from musictag.jobs.entry_point import n_cores


@pytest.mark.parametrize(
    ("options", "n_workers"),
    [([], n_cores()), (["--direct_num_workers=1"], 1), (["--direct_num_workers", "3"], 3)],
)
def test_all_cores_are_used_by_default(options, n_workers):
    pipeline = beam_runner.make_pipeline(["--runner=DirectRunner", *options])
    assert pipeline.options.view_as(DirectOptions).direct_num_workers == n_workers


IN_MEMORY = ["--runner=DirectRunner", "--direct_running_mode=in_memory"]


def test_own_error_of_a_worker_is_raised_and_others_stay_as_they_are():
    texts = ["musictag.errors.StoreError: table t: full [while running 'Featurize']", "TypeError: a bug [while running"]

    def fail(pipeline):
        raise RuntimeError(f"Traceback (most recent call last):\n  File ...\n{texts.pop(0)}\n")

    with pytest.raises(StoreError, match=r"^table t: full$"):
        beam_runner.run(fail, IN_MEMORY)
    with pytest.raises(RuntimeError, match="a bug"):
        beam_runner.run(fail, IN_MEMORY)


LOSE_WORKERS = """
import os, signal
from musictag.engines import beam_runner
from musictag.errors import WorkerLostError

runs = []

def lose_a_worker(pipeline):
    runs.append(pipeline)
    os.kill(os.getpid(), signal.SIGUSR1)

try:
    beam_runner.run(lose_a_worker, ["--runner=DirectRunner", "--direct_running_mode=in_memory"])
except WorkerLostError as error:
    print(len(runs), error)
"""


def test_pipeline_is_run_again_a_few_times_when_workers_are_lost():
    # In a process of its own: a lost worker makes the runner kill all children of its process.
    done = subprocess.run([sys.executable, "-c", LOSE_WORKERS], capture_output=True, text=True, check=True)
    *messages, last = done.stdout.splitlines()
    n_runs = beam_runner.MAX_PIPELINE_RUNS
    assert last.startswith(f"{n_runs} a worker process was killed")
    assert f"{n_runs} times" in last
    assert len(messages) == n_runs - 1
    assert all(message.endswith("is done again") for message in messages)
