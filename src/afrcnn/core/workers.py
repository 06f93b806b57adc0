"""Worker processes: they end with the process that they work for, and their death is told in one line."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing import connection
from multiprocessing.queues import Queue
from types import FrameType
from typing import NoReturn, TypeVar

from afrcnn.core.errors import UserError
from afrcnn.core.image_warnings import ImageWarning

_T = TypeVar("_T")

_SECONDS_BETWEEN_LOOKS = 0.5
"""After which a worker looks whether the process that it works for is still there."""

_SECONDS_OF_GRACE = 10.0
"""For which a worker goes on after SIGTERM; what it works for has ended it before, as a rule."""

_SECONDS_TO_END = 10.0
"""For which the end of a worker is waited for whose pipe has broken."""

_watching: set[int] = set()
"""This process, once it watches its parent; a process that is forked from it has another number."""


def end_with_parent() -> None:
    """Make this process end within a second after its parent has, however that ended."""
    if os.getpid() not in _watching:
        _watching.add(os.getpid())
        # By "forkserver", which is the default from Python 3.14 on, the process that started this one is a server that
        # lives on; the one that it works for is then multiprocessing's parent.
        parent = multiprocessing.parent_process()
        starter = os.getppid()
        employer = starter if parent is None or parent.pid is None else parent.pid
        threading.Thread(target=_watch, args=(starter, employer), daemon=True).start()


def _watch(starter: int, employer: int) -> None:
    while os.getppid() == starter and _is_there(employer):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and another user's
        pass
    return True


def begin_loading(_number: int = 0) -> None:
    """Prepare a process that a DataLoader has started: its ``worker_init_fn``."""
    # Signals that go to all processes of a terminal or of a job are the parent's affair, which may want one more batch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_soon)
    end_with_parent()
    warnings.simplefilter("ignore", ImageWarning)  # the parent warns, once
    # What cannot be handed over, as where /dev/shm is full, would be dropped, and the parent would wait for it.
    Queue._on_queue_feeder_error = staticmethod(_end_for_an_error)  # type: ignore[attr-defined]


def _end_soon(_number: int, _frame: FrameType | None) -> None:
    timer = threading.Timer(_SECONDS_OF_GRACE, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _end_for_an_error(_error: Exception, _item: object) -> NoReturn:
    os._exit(1)


def batches(loader: Iterable[_T], resumed: str = "") -> Iterator[_T]:
    """Yield what a DataLoader loads, as long as its workers live.

    Args:
        loader: the loader, whose ``worker_init_fn`` is ``begin_loading``.
        resumed: what the next start does, for the message, as ``"it goes on from the last checkpoint"``.

    Raises:
        UserError: a worker has ended, says by what signal and what to do.
    """
    handler, earlier = signal.getsignal(signal.SIGCHLD), set(multiprocessing.active_children())
    iterator = iter(loader)
    if threading.current_thread() is threading.main_thread() and handler is not None:
        # PyTorch's handler would raise in whatever line is at work, perhaps in the middle of an update; without it the
        # death of a worker is found where its batch is waited for.
        signal.signal(signal.SIGCHLD, handler)
    workers = [process for process in multiprocessing.active_children() if process not in earlier]
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            # An error that a worker sent begins so; the others are of the way from it to here.
            if not workers or str(error).startswith("Caught "):
                raise
            # The pipe of a dying worker can break before the system says how it ended.
            ended = connection.wait([process.sentinel for process in workers], _SECONDS_TO_END)
            for process in workers:
                if process.sentinel in ended:
                    process.join()
            raise _dead_worker([process.exitcode for process in workers], error, resumed) from error
        yield batch


def _dead_worker(codes: list[int | None], error: Exception, resumed: str) -> UserError:
    """Return what is to be said of a worker's end: the exit codes of all, as multiprocessing has them."""
    numbers = [-code for code in codes if code is not None and code < 0]
    if numbers:
        how = f"was ended by {signal.Signals(numbers[0]).name}"
        causes = {signal.SIGKILL: "the memory may be full", signal.SIGBUS: "/dev/shm may be too small"}
        how += f"; {causes[signal.Signals(numbers[0])]}" if numbers[0] in causes else ""
    elif any(codes):
        how = "ended; /dev/shm may be too small or full"
    else:
        how = f"does not answer ({(str(error).splitlines() or [''])[0]})"
    fix = "start again with --data.workers 0, or with more memory (of a container, --shm-size 8g)"
    return UserError(f"a worker that reads images {how}", fix=f"{fix}; {resumed}" if resumed else fix)
