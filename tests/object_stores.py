"""Object stores on this machine for tests: moto and SeaweedFS speak S3, Azurite speaks Azure's protocol, and
`google_store.py` as much of Google's as is asked.

Each is a process of its own: a client of this process may hold the lock that a thread of a server needs to answer.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import botocore.session
import pytest
from botocore.exceptions import ClientError

from musictag.storage import azure, stores

BUCKET = "music"
AZURITE = Path(__file__).parents[1] / ".venv/azurite/node_modules/azurite/dist/src/blob/main.js"
AZURE_ACCOUNT = "devstoreaccount1"
# The key of every Azurite, which Microsoft's documentation names.
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
VARIABLES = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION",
    "AWS_DEFAULT_REGION", "AWS_PROFILE", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_USE_EMULATOR",
    "STORAGE_EMULATOR_HOST",
    *(variable for variables in azure.VARIABLES.values() for variable in variables),
)  # fmt: skip


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(port: int, *command: object) -> Iterator[None]:
    """Run a server, with its child processes, until the end of the body, which begins when the port answers."""
    server = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert server.poll() is None, f"{command[0]} ended"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _s3_environment(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }


@contextlib.contextmanager
def moto(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    port = free_port()
    with running(port, sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port):
        yield _s3_bucket(port, patch)


@contextlib.contextmanager
def seaweed(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    ports |= {f"{name}.grpc": free_port() for name in ports}
    identity = {
        "name": "test",
        "credentials": [{"accessKey": "key", "secretKey": "secret"}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    options = [
        f"-{server}.port{'.grpc' if grpc else ''}={port}"
        for name, port in ports.items()
        for server, _, grpc in [name.partition(".")]
    ]
    weed = Path(sys.executable).parent / "weed"
    command = [
        weed,
        "server",
        "-ip=127.0.0.1",
        "-master.telemetry=false",
        f"-dir={folder}",
        "-filer",
        "-s3",
        "-s3.config",
        folder / "s3.json",
    ]
    with running(
        ports["s3"],
        *command,
        "-master.volumeSizeLimitMB=64",
        "-volume.max=100",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *options,
    ):
        yield _s3_bucket(ports["s3"], patch)


def _s3_bucket(port: int, patch: pytest.MonkeyPatch) -> str:
    set_environment(patch, _s3_environment(port))
    client = botocore.session.get_session().create_client("s3", region_name="us-east-1")
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
        except ClientError:  # SeaweedFS answers before it can do anything
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return f"s3://{BUCKET}"


@contextlib.contextmanager
def azurite(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    if not AZURITE.exists():
        pytest.fail("Azurite is not installed: run `make azurite`, which needs npm")
    port = free_port()
    place = ("--blobHost", "127.0.0.1", "--blobPort", port, "--location", folder)
    with running(port, "node", AZURITE, *place, "--skipApiVersionCheck", "--silent", "--disableTelemetry"):
        fields = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": AZURE_ACCOUNT,
            "AccountKey": AZURE_KEY,
            "BlobEndpoint": f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}",
        }
        text = ";".join(f"{name}={value}" for name, value in fields.items())
        set_environment(patch, {"AZURE_STORAGE_CONNECTION_STRING": text})
        arrow, path = stores.arrow_filesystem(f"az://{BUCKET}")
        arrow.create_dir(path.rstrip("/"))
        yield f"az://{BUCKET}"


@contextlib.contextmanager
def google(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    port = free_port()
    with running(port, sys.executable, Path(__file__).with_name("google_store.py"), port):
        set_environment(patch, {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"})
        yield f"gs://{BUCKET}"


@contextlib.contextmanager
def local(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    yield str(folder)


def set_environment(patch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Let the environment variables of stores be these, and no others."""
    for name in VARIABLES:
        patch.delenv(name, raising=False)
    for name, value in environment.items():
        patch.setenv(name, value)


Server = Callable[[Path, pytest.MonkeyPatch], contextlib.AbstractContextManager[str]]
STORES: dict[str, Server] = {"local": local, "moto": moto, "seaweedfs": seaweed, "azurite": azurite, "google": google}
"""Each runs a store, lets the environment variables of its cloud lead to it, and yields the URL of an empty place."""


def put(uri: str, content: bytes) -> None:
    """Write a file or an object."""
    url = stores.object_url(uri)
    if url is None:
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
        Path(uri).write_bytes(content)
    elif url.scheme in stores.S3:  # obstore cannot write all keys that S3 has
        filesystem, path = stores.open_filesystem(uri)
        filesystem.pipe(path, content)
    else:
        stores.object_store(url).put(url.key, content, use_multipart=False)
