"""What commands import: nothing that a machine with one device does not need, and that takes seconds."""

import subprocess
import sys

IMPORTS = """
import sys
from afrcnn.cli import main

run, root, out = sys.argv[1:]
image = f"{root}/JPEGImages/test_0.jpg"
for words in (
    ["evaluate", run, "--out", f"{out}/evaluate"],
    ["predict", run, image, "--out", f"{out}/predict"],
    ["masks", run, image, "--adversaries", "[hard_dropout]", "--out", f"{out}/masks"],
    ["stress", run, "--occluder", "grey", "--levels", "0.3", "--out", f"{out}/stress"],
):
    assert main([*words, "--data.workers", "0"]) == 0, words
    imported = {name.partition(".")[0] for name in sys.modules}
    assert "torch" in imported and not imported & {"lightning", "lightning_fabric"}, words
"""


def test_commands_that_only_detect_do_not_import_lightning_on_one_device(run, rectangles, tmp_path):
    words = [sys.executable, "-c", IMPORTS, str(run.folder), str(rectangles), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
