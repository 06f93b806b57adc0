"""Worker processes: their death is told, and they do not outlive the process that they work for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from afrcnn.core.errors import UserError
from afrcnn.core.workers import batches, begin_loading

SECONDS = 240


class Images(Dataset):
    """Images, at the reading of which something may happen."""

    def __init__(self, happens=lambda index: None):
        self.happens = happens

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.happens(index)
        return torch.full((3, 8, 8), index)


def load(happens=lambda index: None, workers=1):
    loader = DataLoader(Images(happens), batch_size=None, num_workers=workers, worker_init_fn=begin_loading)
    return [int(image[0, 0, 0]) for image in batches(loader, "it goes on")]


def test_batches_are_those_of_the_loader():
    assert load() == load(workers=0) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGKILL, "SIGKILL; the memory may be full"), (signal.SIGBUS, "SIGBUS; /dev/shm may be")],
)
def test_a_worker_that_dies_is_told_with_its_signal_and_what_to_do(number, told):
    def die(index):
        if index == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(UserError, match=rf"reads images was ended by {told}.*--data\.workers 0.*; it goes on"):
        load(die)


def test_an_error_of_a_worker_is_its_own():
    def fail(index):
        raise KeyError(index)

    with pytest.raises(KeyError, match="Caught KeyError in DataLoader worker"):
        load(fail)


SMALL = """
mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"
"""

LOAD = """
import sys, torch
from torch.utils.data import DataLoader
from afrcnn.core.errors import UserError
from afrcnn.core.workers import batches, begin_loading
images = [torch.zeros(3, 400, 400) for _ in range(3)]
try:
    list(batches(DataLoader(images, batch_size=None, num_workers=1, worker_init_fn=begin_loading)))
except UserError as error:
    print(error)
    sys.exit(2)
"""


def test_shared_memory_that_is_too_small_ends_in_a_message():
    command = ["unshare", "-m", "sh", "-c", SMALL, "sh", sys.executable]
    try:
        if subprocess.run([*command, "-c", ""], capture_output=True, check=False).returncode:
            pytest.skip("a small /dev/shm can be mounted by root alone")
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    done = subprocess.run([*command, "-c", LOAD], capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 2, done.stderr
    assert "/dev/shm may be too small" in done.stdout and "Traceback" not in done.stderr


SEARCH = """
import sys, time
from pathlib import Path
import joblib
from afrcnn.core.workers import end_with_parent

if __name__ == "__main__":
    with joblib.parallel_config(backend="loky", n_jobs=2, initializer=end_with_parent):
        list(joblib.Parallel()(joblib.delayed(time.sleep)(0.1) for _ in range(2)))
        for task in Path("/proc/self/task").iterdir():
            for number in (task / "children").read_text().split():
                Path(sys.argv[1], number).touch()
        Path(sys.argv[1], "ready").touch()
        time.sleep(600)
"""


def is_running(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
def test_workers_end_with_a_process_that_was_killed(tmp_path):
    (tmp_path / "program.py").write_text(SEARCH)
    numbers = tmp_path / "numbers"
    numbers.mkdir()
    with subprocess.Popen([sys.executable, tmp_path / "program.py", numbers], start_new_session=True) as process:
        try:
            while not (numbers / "ready").exists():
                assert process.poll() is None
                time.sleep(0.05)
        finally:
            process.kill()
    workers = [file.name for file in numbers.iterdir() if file.name.isdigit()]
    assert len(workers) >= 2
    deadline = time.monotonic() + SECONDS
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, workers))


LOADING = """
import multiprocessing, os, sys, time
from pathlib import Path
import torch
from torch.utils.data import DataLoader, Dataset
from afrcnn.core.workers import begin_loading

class Slow(Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, index):
        Path(sys.argv[1], str(os.getpid())).touch()
        time.sleep(600)

if __name__ == "__main__":
    loader = DataLoader(
        Slow(), batch_size=None, num_workers=1, worker_init_fn=begin_loading, multiprocessing_context=sys.argv[2]
    )
    iterator = iter(loader)
    while not list(Path(sys.argv[1]).iterdir()):
        time.sleep(0.05)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_loaders_end_with_a_process_that_was_killed_however_they_were_started(method, tmp_path):
    (tmp_path / "program.py").write_text(LOADING)
    numbers = tmp_path / "numbers"
    numbers.mkdir()
    words = [sys.executable, tmp_path / "program.py", numbers, method]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    [worker] = [file.name for file in numbers.iterdir()]
    deadline = time.monotonic() + SECONDS
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(worker)
