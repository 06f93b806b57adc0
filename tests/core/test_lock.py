"""Claims: one process at a time makes what is in a folder, and the next one waits or turns to something else."""

import subprocess
import sys
from pathlib import Path

from afrcnn.core.lock import claimed

HOLDER = """
import sys
from pathlib import Path
from afrcnn.core.lock import claimed
with claimed(Path(sys.argv[1])) as claim:
    print(claim, flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that claims a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_folder_that_another_process_makes_is_left_to_it_and_nothing_remains_of_a_claim(tmp_path):
    folder = tmp_path / "runs" / "one"
    with hold(folder) as other:
        with claimed(folder) as claim:
            assert not claim
        with claimed(tmp_path / "runs" / "two") as claim:
            assert claim
        other.communicate()
    with claimed(folder) as claim:
        assert claim
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_claim_of_a_process_that_was_killed_is_taken_over_by_one_that_waits(tmp_path):
    with hold(tmp_path / "one") as other:
        other.kill()
        with claimed(tmp_path / "one", wait=True) as claim:
            assert claim
    assert list(tmp_path.iterdir()) == []
