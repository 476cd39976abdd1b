"""A Ray of our own has a token, and refuses clients without it; a cluster's token is its user's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from musictag.engines import ray_cluster
from musictag.errors import UsageError
from musictag.jobs.machine import n_cores

HOST = """
import os, sys
from musictag.engines import ray_cluster
import ray
with ray_cluster.connect(num_cpus=1):
    node = ray._private.worker._global_node
    print(node.gcs_address, node.get_session_dir_path(), os.environ["RAY_AUTH_TOKEN"], flush=True)
    sys.stdin.read()
"""
GUEST = """
import sys
from musictag.engines import ray_cluster
from musictag.jobs.entry_point import run_main
def main(argv):
    with ray_cluster.connect(num_cpus=1):
        print("in")
sys.exit(run_main(main))
"""
STOPPED = """
import os, signal, sys, time
from musictag.engines import ray_cluster
from musictag.jobs.entry_point import run_main
def main(argv):
    with ray_cluster.connect(num_cpus=1):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
sys.exit(run_main(main))
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of somebody who has set nothing for Ray, and whose home no token lies in."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**without, "HOME": str(home), "RAY_NUM_REDIS_GET_RETRIES": "2", **more}


@pytest.mark.parametrize(("address", "n_gpus"), [("", 2), ("10.0.0.1:6379", 0)])
def test_enough_gpus_or_a_cluster_pass_the_check(monkeypatch, address, n_gpus):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    ray_cluster.check_gpus(2, n_gpus)


def test_too_few_gpus_are_refused(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="2 workers need a GPU each, torch finds 1 here"):
        ray_cluster.check_gpus(2, 1)


@pytest.mark.parametrize(
    ("address", "use_gpu", "n_workers"),
    [("", False, n_cores()), ("", True, 1), ("10.0.0.1:6379", False, 24), ("10.0.0.1:6379", True, 3)],
)
def test_number_of_workers_is_that_of_the_cluster(monkeypatch, address, use_gpu, n_workers):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    resources = {"CPU": 24.0, "GPU": 3.0} if address else {"CPU": 100.0}
    monkeypatch.setattr(ray_cluster.ray, "cluster_resources", lambda: resources)
    assert ray_cluster.n_workers(use_gpu=use_gpu) == n_workers


def test_client_without_the_token_of_a_run_is_refused(tmp_path):
    homes = {who: tmp_path / who for who in ("host", "guest")}
    for home in homes.values():
        home.mkdir()

    def visit(**more):
        env = environment(homes["guest"], RAY_ADDRESS=address, **more)
        return subprocess.run([sys.executable, "-c", GUEST], env=env, capture_output=True, text=True, timeout=300)

    with subprocess.Popen(
        [sys.executable, "-c", HOST], env=environment(homes["host"]), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as host:  # fmt: skip
        address, session, token = host.stdout.readline().split()
        stranger, impostor = visit(), visit(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
        friend = visit(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
        written = [path for path in Path(session).rglob("*") if path.is_file() and not path.is_symlink()]
        assert any(path.name == "gcs_server.out" for path in written)
        assert not [path for path in written if token.encode() in path.read_bytes()]
        out, err = host.communicate("")

    assert (friend.returncode, friend.stdout) == (0, "in\n"), friend.stderr
    for refused in (stranger, impostor):
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"error: RAY_ADDRESS {address}: " in refused.stderr
        assert "RAY_AUTH_TOKEN_PATH" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert host.returncode == 0
    assert not [text for text in (out, err, friend.stderr) if token in text]
    assert not list(homes["host"].rglob("*token*"))


@pytest.mark.slow
def test_job_that_gets_sigterm_says_so(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", STOPPED], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert ended.returncode in (143, -signal.SIGABRT)  # threads of Ray may abort the process after that
    assert "stopped by SIGTERM; what is committed stays" in ended.stderr
