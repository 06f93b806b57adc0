"""Train, evaluate and use Fast R-CNN detectors on your own images.

from nothing to a trained detector:
  afrcnn shapes shapes
  afrcnn proposals shapes
  afrcnn train shapes/small_frcn --data.root shapes --run run
  afrcnn evaluate run
  afrcnn predict run shapes/JPEGImages/test_000000.jpg

`afrcnn COMMAND --help` explains a command.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from types import ModuleType, TracebackType
from typing import Any

from afrcnn import __version__
from afrcnn.core.errors import UserError, suggest
from afrcnn.core.image_warnings import collecting, in_words
from afrcnn.core.interruption import Interrupted
from afrcnn.core.opencv import opencv_error
from afrcnn.core.terminal import printable
from afrcnn.parser import FunctionParser, Parser

_COMMANDS: dict[str, dict[str, str]] = {
    "download": {},
    "convert-weights": {},
    "shapes": {"sides": "--sides SHORTEST LONGEST"},
    "check": {},
    "convert": {},
    "minival": {},
    "split": {"split": "[SPLIT]", "random": "--random FRACTION", "names": "--names FIRST SECOND"},
    "deepmask": {},
    "proposals": {"published": "--import FILE"},
    "recipes": {},
    "train": {"run": "--run FOLDER"},
    "evaluate": {"ensemble": "--ensemble RUN", "svd": "--svd FC6 FC7", "lists": "--lists FILE"},
    "diagnose": {"against": "--against RUN", "similar": "--similar CLASS,CLASS", "crops": "--crops N"},
    "submit": {"evaluated": "--evaluated FOLDER"},
    "predict": {},
    "masks": {"boxes": "--box X1 Y1 X2 Y2 CLASS", "limit": "--boxes N"},
    "show": {},
    "demo": {},
    "stress": {},
    "compare": {"out": "--out FOLDER"},
    "export": {},
    "report": {"baseline": "--baseline RUN", "out": "--out FILE"},
    "reproduce": {},
}
"""The commands, each a function ``afrcnn.commands.<name>.<name>`` (_ for -), with the options whose names or values
are not those of its parameters. Help, types and defaults are the function's; ``show`` of its module prints what it
returns."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its words, without the program's name; those of the process when None.

    Returns:
        The exit status: 0; 1 where a check finds what would stop a training, or images that cannot be decoded were left
        out; 2 after a mistake of the user, told in
        one line on standard error; 130 after Ctrl-C; 143 after SIGTERM, where a training has written its checkpoint;
        141 where the reader of the output has gone away.
    """
    if sys.stdout is None or sys.stderr is None:
        return _refuse_closed_output()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of a terminal that knows less than UTF-8
    _quieten_libraries()
    # PyTorch asks the kernel for large pages: on CPUs a tenth of a training step goes into mapping small ones. It
    # reads this once, when it is loaded.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        try:
            status = _run_and_warn(sys.argv[1:] if argv is None else argv)
        finally:
            with _printing():
                sys.stdout.flush()  # here, where a reader that has gone away is noticed; after --help, too
    except ImportError as error:
        if error.name != "cv2" and "cv2" not in str(error.path):
            raise
        print(f"afrcnn: error: {opencv_error(error)}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"afrcnn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print("; ".join(["afrcnn: interrupted", *error.args]), file=sys.stderr)
        return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)
    except BrokenPipeError:
        # Python flushes standard output once more at its end, where nobody would catch the error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def _run_and_warn(words: Sequence[str]) -> int:
    """Run a command, name damaged images at its end, and return its exit status: 1 where some were left out."""
    with collecting() as warned:
        try:
            status = _run(words)
        finally:
            if not _is_further_process():
                for line in in_words(warned):
                    print(printable(f"afrcnn: warning: {line}"), file=sys.stderr)
    return status or int(any(warning.left_out for warning in warned))


def _is_further_process() -> bool:
    """Tell whether this is another than the first of several processes, which speaks for all."""
    if "torch" not in sys.modules:
        return False
    from afrcnn.core.distributed import rank_and_size  # noqa: PLC0415  imports torch

    return rank_and_size()[0] > 0


def _run(words: Sequence[str]) -> int:
    """Run the command that the first word names, or show which commands there are; return the exit status."""
    command = words[0] if words else "-"
    if command in _COMMANDS:
        module, function = _function(command)
        arguments = FunctionParser(function, _COMMANDS[command], command).parse_words(words[1:])
        _, *shown = signature(module.show).parameters
        result = function(**arguments)
        with _printing():
            status = module.show(result, **{name: arguments[name] for name in shown if name in arguments})
        return status or 0
    if command.startswith("-"):
        _show_commands(words)
        return 0
    raise UserError("unknown command", field=command, fix=suggest(command, list(_COMMANDS), "see `afrcnn --help`"))


def _function(command: str) -> tuple[ModuleType, Callable[..., Any]]:
    """Return a command's module, and its function there."""
    name = {"show": "found"}.get(command, command.replace("-", "_"))  # show is what prints, in all of them
    module = import_module(f"afrcnn.commands.{name}")
    return module, getattr(module, name)


@contextmanager
def _printing() -> Iterator[None]:
    """Make it the user's error that standard output takes nothing; that its reader has gone away is none.

    Raises:
        UserError: so it is.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # Python flushes it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        problem = f"standard output cannot be written ({error.strerror})"
        raise UserError(problem, fix="the command has finished but for this; see the files it wrote") from error


def _refuse_closed_output() -> int:
    """Say that standard output or standard error is closed, where there is still somebody to hear it."""
    # A file that a command opens would take the place of the closed one, and get what is meant for a terminal.
    if sys.stderr is not None:
        print("afrcnn: error: standard output is closed; send it to /dev/null instead, as >/dev/null", file=sys.stderr)
    return 2


def _show_commands(words: Sequence[str]) -> None:
    """Show the version, or the help of the program, which lists all commands."""
    description, _, epilog = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="afrcnn", usage="afrcnn COMMAND ...", description=description, epilog=epilog)
    parser.add_argument("--version", action="version", version=f"afrcnn {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND ...")
    for command in _COMMANDS:
        docstring = _function(command)[1].__doc__ or ""
        commands.add_parser(command, help=docstring.partition("\n")[0].rstrip("."))
    parser.parse_args(words)
    parser.print_help()


def _quieten_libraries() -> None:
    """Keep hints of libraries to their programmers off the screen; PYTHONWARNINGS brings the warnings back."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    sys.excepthook = _report_exception


def _report_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an exception that nobody caught, but for what a DataLoader's worker says when Ctrl-C ends its parent."""
    if multiprocessing.parent_process() is None or not isinstance(error, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


if __name__ == "__main__":
    sys.exit(main())
