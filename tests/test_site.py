"""The documentation as a site: it builds without a warning, and has all of the public interface."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import afrcnn

ROOT = Path(__file__).parents[1]


def test_the_reference_has_every_public_name_and_no_other():
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"### afrcnn\.(\w+)\n\n::: ([\w.]+)", text))
    assert sorted(documented) == [name for name in afrcnn.__all__ if name != "__version__"]
    for name, path in documented.items():
        shown = getattr(afrcnn, name)
        assert (shown.__module__, shown.__qualname__) == tuple(path.rsplit(".", 1))


@pytest.mark.skipif(find_spec("mkdocs") is None or find_spec("mkdocstrings") is None, reason="needs afrcnn[docs]")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    text = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert "folder that <code>afrcnn train</code> made" in text
    for page in (tmp_path / "site").rglob("index.html"):
        loaded = re.findall(r'(?:src|href)="(https?:[^"]+)"', page.read_text(encoding="utf-8"))
        assert not [address for address in loaded if address.endswith((".js", ".css"))]
