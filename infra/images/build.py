"""Build an image, by buildah where it is installed, else by Docker: build.py NAME TAG [ARCHIVE].

python infra/images/build.py musictag musictag:0.1
python infra/images/build.py mlflow musictag-mlflow:0.1 mlflow.tar

NAME is a folder of infra/images. ARCHIVE is written in the form that `docker load` and `ctr images import` read. The
builder's own configuration of pip is handed to the build, with the folders and certificates that it names. BASE_IMAGE
names another base than Debian's from Docker Hub, and TORCH_INDEX PyTorch's index, such as
https://download.pytorch.org/whl/cpu.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Settings of pip that say where packages come from.
SETTINGS = ("index-url", "extra-index-url", "find-links", "cert", "trusted-host", "proxy", "timeout", "retries")


def pip_settings() -> dict[str, str]:
    """Return where the builder's pip gets packages from, by its files and its environment."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition("=")
        setting = name.rpartition(".")[2]
        if setting in SETTINGS:
            found.setdefault(setting, []).append(ast.literal_eval(value))
    return {setting: " ".join(dict.fromkeys(values)) for setting, values in found.items()}


def paths_in(settings: dict[str, str]) -> list[str]:
    """Return the local folders and files that settings of pip name."""
    text = re.sub(r"file://", "", " ".join(settings.values()))
    paths = {path for path in text.split() if path.startswith("/") and Path(path).exists()}
    # An index links to files beside it.
    return sorted({str(Path(path).parent) if Path(path).name == "simple" else path for path in paths})


def main(name: str, tag: str, archive: str | None = None) -> None:
    """Build the image `name`, and write it to an archive."""
    settings = pip_settings()
    arguments = [
        part
        for variable, argument in (("BASE_IMAGE", "BASE"), ("TORCH_INDEX", "TORCH_INDEX"))
        if (value := os.environ.get(variable))
        for part in ("--build-arg", f"{argument}={value}")
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as pip_conf:
        # Debian's package ca-certificates would overwrite a certificate that is mounted at the builder's place.
        if certificate := settings.pop("cert", None):
            arguments += ["--secret", f"id=pip.crt,src={certificate}"]
            settings["cert"] = "/run/secrets/pip.crt"
        pip_conf.write("\n".join(["[global]", *(f"{key} = {value}" for key, value in settings.items())]) + "\n")
        pip_conf.flush()
        build = ["--file", f"infra/images/{name}/Dockerfile", "--secret", f"id=pip.conf,src={pip_conf.name}",
                 "--tag", tag, *arguments]  # fmt: skip
        if shutil.which("buildah"):
            # `--timestamp` makes the same layers from the same files; chroot needs no further privileges.
            mounts = [f"--volume={path}:{path}:ro" for path in paths_in(settings)]
            run("buildah", "bud", "--isolation", "chroot", "--network", "host", "--layers", "--timestamp", "0",
                *mounts, *build, ".")  # fmt: skip
        else:
            run("docker", "build", *build, ".")
    if archive:
        Path(archive).unlink(missing_ok=True)
        if shutil.which("buildah"):
            run("buildah", "push", tag, f"docker-archive:{archive}:{tag}")
        else:
            run("docker", "save", "--output", archive, tag)


def run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=ROOT)


if __name__ == "__main__":
    main(*sys.argv[1:])
