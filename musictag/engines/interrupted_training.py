"""Find the run of an interrupted training, which the next attempt continues, and delete checkpoints."""

from musictag.engines import mlflow_runs
from musictag.errors import StoreError, TrainingError
from musictag.jobs.progress import echo
from musictag.storage import folders, heartbeats


def take_over(fingerprint: str, checkpoints: str, *, fresh: bool) -> str | None:
    """Return the MLflow run of the newest interrupted attempt at a training; None if there is none.

    Older interrupted attempts are discarded, and with `fresh` all of them. This takes up to a minute if the driver of
    an attempt was on another machine, see `heartbeats.running_states`.

    Args:
        fingerprint: see `training.fingerprint`.
        checkpoints: folder or URL of the checkpoints, each run's in a folder with its id.
        fresh: do not continue a run.

    Raises:
        TrainingError: another process is training the same model, and not `fresh`.
    """
    runs = mlflow_runs.unfinished_runs(fingerprint, checkpoints)
    is_running = heartbeats.running_states(checkpoints, runs)
    if not fresh and (running := [run for run in runs if is_running[run]]):
        raise TrainingError(
            f"another process is training the same model, in MLflow's run {running[0]}: wait for it, or train a second "
            "model of the same data by --fresh"
        )
    # A run may have finished while its driver was watched.
    unfinished = mlflow_runs.unfinished_runs(fingerprint, checkpoints)
    interrupted = [run for run in runs if run in unfinished and not is_running[run]]
    for run in interrupted if fresh else interrupted[1:]:
        delete_checkpoints(checkpoints, run)
        mlflow_runs.discard_run(run)
    return interrupted[0] if interrupted and not fresh else None


def delete_checkpoints(checkpoints: str, run_id: str) -> None:
    """Delete the checkpoints of a run; print a message if the store refuses that."""
    try:
        folders.delete_folder(checkpoints, run_id)
    except StoreError as error:
        echo(f"the checkpoints of run {run_id} are not deleted: {error}")
