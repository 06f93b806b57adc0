"""The public interface: one list of names."""

import subprocess
import sys
from importlib.util import find_spec
from inspect import isfunction

import afrcnn
from afrcnn.cli import _COMMANDS


def test_every_name_of_the_list_resolves_and_is_shown_by_dir() -> None:
    for name in afrcnn.__all__:
        assert getattr(afrcnn, name) is not None, name
    assert dir(afrcnn) == afrcnn.__all__


def test_the_list_is_sorted_and_has_no_name_twice() -> None:
    assert list(afrcnn._MODULES) == sorted(set(afrcnn._MODULES))
    assert afrcnn.__all__ == sorted(set(afrcnn.__all__))


def test_no_name_is_that_of_a_module() -> None:
    for name in afrcnn.__all__:
        assert find_spec(f"afrcnn.{name}") is None, name


def test_the_function_of_each_command_is_public() -> None:
    for command in _COMMANDS:
        name = command.replace("-", "_")
        function = getattr(afrcnn, {"proposals": "propose"}.get(name, name))
        assert isfunction(function), command
        assert function.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(afrcnn, "trian")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, afrcnn; print([name for name in ('torch', 'numpy', 'cv2') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
