"""What a test asks of a process that may end at any moment."""

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
