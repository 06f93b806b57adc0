"""Headless Chromium, driven over a pair of pipes by its DevTools protocol, in real time."""

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE = 120  # seconds that an answer may take on a busy machine


class Seen(NamedTuple):
    """What a browser made of a page: what a script returned, and what was written to the console."""

    value: Any
    console: list[str]


def program() -> str | None:
    """Where Chromium lies, `None` where none is installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Chromium:
    """One browser for many pages; it reads commands from its file descriptor 3 and answers on 4.

    Args:
        program: path of the browser.
        profile: folder for what it keeps.
    """

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        # The shell gives the two ends their numbers, whatever they have here.
        start = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", start, program, *options, f"--user-data-dir={profile}"],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._number = 0
        self._unread = b""

    def look(self, page: Path, script: str = "return null", *, width: int = 1280) -> Seen:
        """Open a page, and run the body of an async function in it once all of it has loaded."""
        window = {"newWindow": True, "width": width, "height": 900}
        target = self._call("Target.createTarget", url="about:blank", **window)[0]["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)[0]["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable", session)
        _, events = self._call("Page.navigate", session, url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in events):
            events.append(self._read())
        answer, more = self._call(
            "Runtime.evaluate",
            session,
            expression=f"(async () => {{{script}}})()",
            awaitPromise=True,
            returnByValue=True,
        )
        _, last = self._call("Target.closeTarget", targetId=target)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        written = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        console = [json.dumps(event["params"]) for event in events + more + last if event.get("method") in written]
        return Seen(answer["result"].get("value"), console)

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def _call(self, method: str, session: str | None = None, **params: Any) -> tuple[dict[str, Any], list[Any]]:
        """The result of a command, and the events before it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        events = []
        while (answer := self._read()).get("id") != self._number:
            events.append(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"], events

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], max(0, until - time.monotonic()))
            assert ready, f"the browser said nothing for {PATIENCE} seconds"
            read = os.read(self._answers, 1 << 20)
            assert read, "the browser has ended"
            self._unread += read
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)
