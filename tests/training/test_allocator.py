"""The allocator keeps what is freed, for the next step."""

import platform
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, sys, torch
from afrcnn.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for step in range(5):
    if step == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is the GNU C library's")
def test_memory_that_was_freed_comes_back_without_page_faults():
    def faults(mode: str) -> int:
        done = subprocess.run([sys.executable, "-c", PAGE_FAULTS, mode], capture_output=True, text=True, check=True)
        return int(done.stdout)

    pages = 4 * 64_000_000 // 2**21  # four blocks, even if the kernel hands out pages of 2 MB
    assert faults("leave") > pages
    assert faults("keep") < pages / 2
