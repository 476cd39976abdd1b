import hashlib
import io
import os
import re
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from musictag.cli.main import entry
from musictag.errors import ModelError
from musictag.models.architectures import build_model
from musictag.models.artifact import load_model
from musictag.models.published import conversion, pretrained

# Architecture: scope of each convolution, dense layer and batch norm in TensorFlow, with the shape of its variables.
KERNELS = {
    "musicnn": {
        "conv2d": (7, 38, 1, 204), "conv2d_1": (7, 67, 1, 204), "conv2d_2": (128, 1, 1, 51), "conv2d_3": (64, 1, 1, 51),
        "conv2d_4": (32, 1, 1, 51), "conv2d_5": (7, 561, 1, 64), "conv2d_6": (7, 64, 1, 64), "conv2d_7": (7, 64, 1, 64),
        "dense": (1506, 200), "dense_1": (200, 50),
    },
    "vgg": {f"{n}CNN": (3, 3, 128 if n > 1 else 1, 128) for n in range(1, 6)} | {"dense": (256, 50)},
}  # fmt: skip
NORMS = {"musicnn": [1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200], "vgg": [1, *[128] * 5]}
LABELS = "".join(f"{name} = {[f'{name} {n}' for n in range(50)]}\n" for name in ("MTT_LABELS", "MSD_LABELS"))
TAG_LISTS = "musicnn/configuration.py"
VGG_INDEX, VGG_DATA = "musicnn/MSD_vgg/.index", "musicnn/MSD_vgg/.data-00000-of-00001"

Variables = dict[str, np.ndarray]


def some_variables(architecture: str) -> Variables:
    rng = np.random.default_rng(0)
    shapes = {"beta1_power": ()}
    for scope, shape in KERNELS[architecture].items():
        shapes |= {f"{scope}/kernel": shape, f"{scope}/kernel/Adam": shape, f"{scope}/bias": shape[-1:]}
    for n, width in enumerate(NORMS[architecture]):
        scope = f"batch_normalization_{n}" if n else "batch_normalization"
        shapes |= {f"{scope}/{part}": (width,) for part in ("gamma", "beta", "moving_mean", "moving_variance")}
    return {name: rng.uniform(0.5, 1.5, shape).astype("<f4") for name, shape in shapes.items()}


def varint(number: int) -> bytes:
    """Always of five bytes, which the format allows."""
    return bytes(number >> shift & 0x7F | (shift < 28) << 7 for shift in range(0, 35, 7))


def checkpoint(variables: Variables) -> tuple[bytes, bytes]:
    """The content of `.index`, of one block without shared prefixes, and of `.data`."""

    def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
        entries = (varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs)
        return b"".join(entries) + struct.pack("<2I", 0, 1)

    pairs, data = [(b"", b"")], b""
    for name, values in sorted(variables.items()):
        dims = [b"\x08" + varint(length) for length in values.shape]
        shape = b"".join(b"\x12" + varint(len(dim)) + dim for dim in dims)
        value = b"\x08\x01\x12" + varint(len(shape)) + shape
        pairs.append((name.encode(), value + b"\x20" + varint(len(data)) + b"\x28" + varint(values.nbytes)))
        data += values.tobytes()
    entries = block(pairs)
    index = block([(b"~", varint(0) + varint(len(entries)))])
    handles = varint(0) + varint(0) + varint(len(entries) + 5) + varint(len(index))
    footer = handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    return entries + bytes(5) + index + bytes(5) + footer, data


def pack(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as files:
        for name, content in members.items():
            files.writestr(name, content)
    return packed.getvalue()


def read(members: dict[str, bytes], name: str = "msd-vgg") -> torch.nn.Module:
    with zipfile.ZipFile(io.BytesIO(pack(members))) as files:
        return conversion.read_model(files, pretrained.PUBLISHED[name])[0]


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    """What the wheel holds, with weights of the test's own."""
    content = {TAG_LISTS: LABELS.encode(), "musicnn-0.1.0.dist-info/LICENSE.md": b"ISC License\n"}
    for architecture in ("musicnn", "vgg"):
        index, data = checkpoint(some_variables(architecture))
        for corpus in ("MTT", "MSD"):
            folder = f"musicnn/{corpus}_{architecture}"
            content |= {f"{folder}/.index": index, f"{folder}/.data-00000-of-00001": data}
    return content


@pytest.fixture
def wheel(members: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "musicnn-0.1.0-py3-none-any.whl"
    path.write_bytes(pack(members))
    monkeypatch.setattr(conversion, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_each_variable_of_musicnn_is_copied_to_its_tensor(members: dict[str, bytes]) -> None:
    model, variables = read(members, "mtt-musicnn"), some_variables("musicnn")
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for ours, theirs in {"timbral.0": "conv2d", "timbral.1": "conv2d_1", "temporal.0": "conv2d_2",
                         "temporal.2": "conv2d_4"}.items():  # fmt: skip
        np.testing.assert_array_equal(weights[f"{ours}.conv.weight"][5, 0], variables[f"{theirs}/kernel"][:, :, 0, 5])
        np.testing.assert_array_equal(weights[f"{ours}.conv.bias"], variables[f"{theirs}/bias"])
    for ours, theirs in {"midend.0": "conv2d_5", "midend.2": "conv2d_7"}.items():
        np.testing.assert_array_equal(weights[f"{ours}.conv.weight"][5, 7], variables[f"{theirs}/kernel"][:, 7, 0, 5])
    np.testing.assert_array_equal(weights["dense.weight"], variables["dense/kernel"].T)
    np.testing.assert_array_equal(weights["head.weight"], variables["dense_1/kernel"].T)
    for ours, number in {"input_norm": "", "temporal.1.norm": "_4", "midend.1.norm": "_7", "pooled_norm": "_9",
                         "dense_norm": "_10"}.items():  # fmt: skip
        for part, name in (("weight", "gamma"), ("bias", "beta"), ("running_mean", "moving_mean")):
            np.testing.assert_array_equal(weights[f"{ours}.{part}"], variables[f"batch_normalization{number}/{name}"])


def test_each_variable_of_vgg_is_copied_to_its_tensor(members: dict[str, bytes]) -> None:
    model, variables = read(members, "mtt-vgg"), some_variables("vgg")
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for n in range(5):
        kernel, place = variables[f"{n + 1}CNN/kernel"], weights[f"blocks.{5 * n}.weight"]
        np.testing.assert_array_equal(place, np.moveaxis(kernel, (3, 2), (0, 1)))
        variance = variables[f"batch_normalization_{n + 1}/moving_variance"]
        np.testing.assert_array_equal(weights[f"blocks.{5 * n + 2}.running_var"], variance)
    np.testing.assert_array_equal(weights["head.weight"], variables["dense/kernel"].T)


def test_a_wheel_is_converted_to_four_readable_models_and_can_be_converted_again(wheel: Path, tmp_path: Path) -> None:
    contents = []
    umask = os.umask(0o022)
    try:
        for _ in range(2):
            folders = conversion.convert(wheel, tmp_path / "deep" / "models")
            contents.append({path: path.read_bytes() for folder in folders for path in folder.iterdir()})
    finally:
        os.umask(umask)
    assert folders == [tmp_path / "deep" / "models" / name for name in pretrained.PUBLISHED]
    assert contents[0] == contents[1]
    names = ("LICENSE.musicnn.md", "tagger.json", "weights.safetensors")
    assert set(contents[0]) == {folder / name for folder in folders for name in names}
    assert {path.stat().st_mode & 0o777 for path in contents[0]} == {0o644}
    model, spec = load_model(folders[3])
    assert spec.vocabulary[:2] == ("MTT_LABELS 0", "MTT_LABELS 1")
    np.testing.assert_array_equal(model.head.bias.detach(), some_variables("vgg")["dense/bias"])


def test_a_folder_that_cannot_be_written_is_named(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="msd-musicnn cannot be written: "):
        conversion.convert(wheel, tmp_path / "models")


def test_a_missing_or_damaged_member_is_named(members: dict[str, bytes]) -> None:
    for missing in (TAG_LISTS, VGG_INDEX, VGG_DATA):
        with pytest.raises(ModelError, match=f"the wheel has no {missing}"):
            read({name: content for name, content in members.items() if name != missing})
    damaged = io.BytesIO(pack(members).replace(b"MTT_LABELS 7", b"MTT_LABELS 8", 1))
    with zipfile.ZipFile(damaged) as files, pytest.raises(ModelError, match=f"{TAG_LISTS} of the wheel cannot be read"):
        conversion.read_model(files, pretrained.PUBLISHED["msd-vgg"])


@pytest.mark.parametrize(
    ("tag_lists", "complaint"),
    [
        (b"MTT_LABELS = ['a']", "has no MSD_LABELS"),
        (b"MSD_LABELS = load('tags')", "cannot be read: "),
        (b"MSD_LABELS = {[]: 1}", "cannot be read: "),
        (b"MSD_LABELS = ['\xff']", "cannot be read: "),
        (b"MSD_LABELS = 50", "MSD_LABELS is not a list of strings"),
        (b"MSD_LABELS = 'rock'", "MSD_LABELS is not a list of strings"),
        (b"MSD_LABELS = ['rock', 2]", "MSD_LABELS is not a list of strings"),
        (b"MSD_LABELS = ['rock', 'pop']", r"dense/kernel has shape \(256, 50\), not \(256, 2\)"),
    ],
)
def test_a_tag_list_that_cannot_be_read_is_refused(members: dict[str, bytes], tag_lists: bytes, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        read({**members, TAG_LISTS: tag_lists})


@pytest.mark.parametrize(
    ("architecture", "variable", "shape", "needed"),
    [
        ("vgg", "2CNN/kernel", (128, 128, 3, 3), (3, 3, 128, 128)),
        ("vgg", "2CNN/kernel", (3, 3, 128), (3, 3, 128, 128)),
        ("vgg", "dense/kernel", (50, 256), (256, 50)),
        ("vgg", "dense/bias", (), (50,)),
        ("vgg", "batch_normalization/gamma", (2,), (1,)),
        ("musicnn", "conv2d_6/kernel", (7, 64, 2, 64), (7, 64, 1, 64)),
    ],
)
def test_a_variable_of_another_shape_is_named(
    architecture: str, variable: str, shape: tuple[int, ...], needed: tuple[int, ...]
) -> None:
    variables = {**some_variables(architecture), variable: np.zeros(shape, "<f4")}
    model = build_model(architecture, {}, n_mels=96, n_tags=50)
    with pytest.raises(ModelError, match=re.escape(f"{variable} has shape {shape}, not {needed}")):
        conversion.copy_weights(variables, model)


def test_errors_of_a_checkpoint_name_the_checkpoint(members: dict[str, bytes]) -> None:
    index, data = checkpoint({name: values for name, values in some_variables("vgg").items() if name != "dense/bias"})
    for wrong, complaint in (
        ({VGG_INDEX: index, VGG_DATA: data}, "the checkpoint has no variable dense/bias"),
        ({VGG_INDEX: b"index"}, "not a TensorFlow checkpoint that can be read: "),
        ({VGG_DATA: members[VGG_DATA][:-4]}, ".* data file is too short for "),
    ):
        with pytest.raises(ModelError, match=f"musicnn/MSD_vgg of the wheel: {complaint}"):
            read({**members, **wrong})


def pip_that(does: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python whose pip does as the shell says, with `$dest` the folder to download to; its call lies in `call`."""
    script = tmp_path / "python"
    find_dest = 'for word; do [ "$previous" = --dest ] && dest=$word; previous=$word; done'
    script.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/call"\n{find_dest}\n{does}\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_install_fetches_the_wheel_unless_it_is_given(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip_that(f'cp "{wheel}" "$dest"', tmp_path, monkeypatch)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    folders = conversion.install()
    assert folders == [pretrained.find(name) for name in pretrained.PUBLISHED]
    assert folders[0].parent == tmp_path / "share/musictag"
    call = (tmp_path / "call").read_text().split()
    assert call[:3] == ["-m", "pip", "download"]
    assert call[-1] == "musicnn==0.1.0"
    assert {"--no-deps", "--only-binary"} <= set(call)  # a source archive would run code of the package
    (tmp_path / "call").unlink()
    assert conversion.install(wheel) == folders
    assert not (tmp_path / "call").exists()


def test_weights_command_prints_the_models_and_their_folder(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert entry(["weights", str(wheel)]) == 0
    out, err = capsys.readouterr()
    assert out == f"4 models ({', '.join(pretrained.PUBLISHED)}); {tmp_path}/share/musictag\n"
    assert err == ""


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("echo 'WARNING: retrying' >&2; echo 'ERROR: No matching distribution' >&2; exit 1", "ERROR: No matching"),
        ("exit 0", "it downloaded no wheel"),
        ('touch "$dest/musicnn-0.1.0.tar.gz"', "it downloaded no wheel"),
    ],
)
def test_a_failure_of_pip_is_reported_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, reason: str
) -> None:
    pip_that(does, tmp_path, monkeypatch)
    with pytest.raises(ModelError, match=f"pip cannot fetch musicnn==0.1.0: {reason}.*`musictag weights WHEEL`"):
        conversion.fetch_wheel(tmp_path)
