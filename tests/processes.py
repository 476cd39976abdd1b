"""What a test asks of a process that may end at any moment."""

from pathlib import Path

import psutil


def is_running(process: psutil.Process) -> bool:
    """False also for one that has ended and that nobody has waited for yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two
        return False


def command_line(process: psutil.Process) -> str:
    """Its words; empty where it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def committing_often(script: Path, folder: Path, block_tracks: int | None = None) -> Path:
    """Copy a script of `pipelines` to a folder, changed so that it commits as soon as something is there.

    Ray hands it `block_tracks` scored tracks at a time.
    """
    text = script.read_text()
    assert text.count("\ndef main(") == 1
    settings = "\nfrom musictag.jobs import committer\n\ncommitter.POLL_S = committer.COMMIT_S = 0.05\n"
    settings += "committer.MAX_SHARE = 1e9\n"
    if block_tracks is not None:
        settings += f"from musictag.engines import ray_scoring\nray_scoring.BLOCK_TRACKS = {block_tracks}\n"
    copy = folder / script.name
    copy.write_text(text.replace("\ndef main(", f"{settings}\n\ndef main("))
    return copy
