"""What commands refuse before anything slow."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "call",
    [
        "deepmask('nowhere')",
        "evaluate('nowhere')",
        "evaluate(detections='nowhere')",
        "evaluate('nowhere', ensemble=['a'], out='b')",
        "diagnose('nowhere')",
        "masks('nowhere', ['a.jpg'])",
        "predict('nowhere', ['a.jpg'])",
        "proposals('nowhere')",
        "report(['nowhere'])",
        "split('nowhere', 'test')",
        "submit('nowhere')",
        "stress('nowhere')",
        "train('nowhere.yaml')",
    ],
)
def test_a_mistyped_folder_is_refused_without_waiting_for_torch(call):
    command = call.partition("(")[0]
    code = f"""
import sys
from afrcnn.commands.{command} import {command}
from afrcnn.core.errors import UserError
try:
    {call}
except UserError as error:
    assert "nowhere" in str(error), error
    assert "torch" not in sys.modules
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
