"""Checkpoints: whole or not there, and no code in them is run."""

import errno
import os
import pickle
import subprocess

import pytest
import torch
from safetensors import safe_open
from torch import nn

from afrcnn.core import atomic
from afrcnn.core.errors import UserError
from afrcnn.detectors.weights import load_strict
from afrcnn.training.checkpoint import load_checkpoint, save_checkpoint, save_weights

STATE = {
    "iteration": 7,
    "detector": {"weight": torch.arange(12.0).view(3, 4), "half": torch.ones(2).half()},
    "optimizer": {"state": {0: {"momentum_buffer": None}}, "param_groups": [{"lr": 0.1, "fused": True}]},
    "randomness": [{"cpu": torch.get_rng_state()}],
}


def test_a_state_comes_back_as_it_was(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", STATE)
    again = load_checkpoint(tmp_path / "checkpoint.pt", *STATE)
    assert again["iteration"] == 7 and again["optimizer"] == STATE["optimizer"]
    assert torch.equal(again["detector"]["weight"], STATE["detector"]["weight"])
    assert torch.equal(again["randomness"][0]["cpu"], STATE["randomness"][0]["cpu"])


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(kept, tmp_path):
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, STATE)
    data = file.read_bytes()
    file.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(UserError) as caught:
        load_checkpoint(file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


class Hostile:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("write", [torch.save, lambda state, file: file.write_bytes(pickle.dumps(state, 2))])
def test_a_hostile_checkpoint_runs_no_code(write, tmp_path):
    file = tmp_path / "checkpoint.pt"
    write({"iteration": Hostile(tmp_path / "hacked")}, file)
    with pytest.raises(UserError, match="is not a valid checkpoint"):
        load_checkpoint(file)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("state", [torch.zeros(3), [1, 2], {"weight": torch.zeros(3)}, {"iteration": 3}])
def test_a_file_that_holds_something_else_is_refused(state, tmp_path):
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=r"checkpoint\.pt: is not a valid checkpoint"):
        load_checkpoint(tmp_path / "checkpoint.pt", "iteration", "detector")


class StoppedFile:
    """A file that takes ``room`` bytes and then raises ``error``."""

    def __init__(self, file, room, error):
        self.file, self.room, self.error = file, room, error

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise self.error
        return self.file.write(data)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.file, name)


TOLD = r": cannot be written \(No space left on device\); free some space"
FULL_DISK = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), UserError, TOLD
CTRL_C = KeyboardInterrupt(), KeyboardInterrupt, None


@pytest.mark.parametrize("room", [0, 100, 3000])
@pytest.mark.parametrize(("stop", "told", "message"), [FULL_DISK, CTRL_C], ids=["full disk", "Ctrl-C"])
@pytest.mark.parametrize("name", ["checkpoint.pt", "weights.safetensors"])
def test_a_full_disk_and_ctrl_c_are_told_keep_the_last_file_and_leave_nothing_else(
    name, stop, told, message, room, tmp_path, monkeypatch
):
    def save(value):
        if name == "checkpoint.pt":
            save_checkpoint(tmp_path / name, {"iteration": value, "weights": torch.full((1000,), value)})
        else:
            module = nn.Linear(1000, 1)
            nn.init.constant_(module.weight, value)
            save_weights(tmp_path / name, module, {})

    save(1)
    before = (tmp_path / name).read_bytes()
    stopped = lambda *args, **kwargs: StoppedFile(open(*args, **kwargs), room, stop)  # noqa: E731, SIM115, PTH123
    monkeypatch.setattr(atomic, "open", stopped, raising=False)
    with pytest.raises(told, match=message and name + message):
        save(2)
    assert (tmp_path / name).read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_disk_that_is_really_full_is_told_so(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
        mounted = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root alone")
    try:
        save_checkpoint(disk / "checkpoint.pt", {"iteration": 1})
        with pytest.raises(UserError, match="No space left"):
            save_checkpoint(disk / "checkpoint.pt", {"weights": torch.zeros(100_000)})
        assert load_checkpoint(disk / "checkpoint.pt") == {"iteration": 1}
        assert [file.name for file in disk.iterdir()] == ["checkpoint.pt"]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (nn.Linear(4, 2), "weight is 2x4, expected 3x4"),
        (nn.Linear(4, 3, bias=False), "bias is missing"),
        (nn.Sequential(nn.Linear(4, 3)), "is missing"),
        (nn.Bilinear(4, 4, 3), "weight is 3x4x4"),
    ],
)
def test_the_weights_of_another_model_are_refused_and_change_nothing(other, named, tmp_path):
    module = nn.Linear(4, 3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_strict(module, other.state_dict(), tmp_path / "checkpoint.pt")
    assert str(tmp_path / "checkpoint.pt") in str(caught.value) and named in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_weights_are_written_with_their_description(tmp_path):
    module = nn.Linear(4, 3)
    save_weights(tmp_path / "weights.safetensors", module, {"classes": ["a", "b"]})
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("weight"), module.weight)
        assert file.metadata()["afrcnn"] == '{"classes": ["a", "b"]}'
