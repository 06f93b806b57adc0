"""Ctrl-C and SIGTERM: heard while a loop works, and answered where it can stop without a loss."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

_ASKED = b"\nafrcnn: stopping after this iteration; once more to stop at once, without what it has made\n"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or SIGTERM, after which everything was saved.

    Args:
        message: what was saved, and how to go on.
        number: the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class Interruption:
    """Takes note of SIGINT and SIGTERM for a block; the second one interrupts at once.

    In another thread than the main one it hears nothing. A signal that the process ignores, as SIGINT in the background
    of a shell, remains ignored.

    Args:
        quiet: say nothing when the signal comes (in all processes but the first).

    Attributes:
        number: the signal that came; 0 as long as there is none.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet, self.number = quiet, 0
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number or os.getpid() != self._process:  # a process that was forked has nothing to save
            raise KeyboardInterrupt
        self.number = number
        if not self.quiet and sys.stderr is not None:
            os.write(2, _ASKED)  # not by `print`, which the signal may have come into the middle of
