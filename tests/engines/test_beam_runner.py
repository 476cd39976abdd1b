import os
import signal

import pytest
from apache_beam.options.pipeline_options import DirectOptions

from musictag.engines import beam_runner
from musictag.errors import StoreError, WorkerLostError
from musictag.jobs.process import n_cores


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


def test_pipeline_is_run_again_a_few_times_when_workers_are_lost(capsys):
    runs = []

    def lose_a_worker(pipeline):
        runs.append(pipeline)
        os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(WorkerLostError, match=f"killed.*, {beam_runner.MAX_LOST_WORKERS} times"):
        beam_runner.run(lose_a_worker, IN_MEMORY)
    assert len(runs) == beam_runner.MAX_LOST_WORKERS
    assert capsys.readouterr().out.count("is done again") == beam_runner.MAX_LOST_WORKERS - 1
