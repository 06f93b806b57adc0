"""A server on this machine that answers well, or in one of the ways in which servers fail."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """A server of files, as a context manager.

    Attributes:
        files: the content of each file by its name.
        requests: name and first byte of every request.
        ranges: whether it answers requests for a part of a file, or sends all of it always.
        break_after: after how many bytes of an answer the connection breaks; None: never.
        added_length: how many bytes more than there are it says that there are; None: it says nothing.
        pause: waits after that many bytes until this event is set.
        shift: how many bytes later than asked for a part begins.
    """

    def __init__(self):
        self.files, self.requests = {}, []
        self.ranges, self.break_after, self.added_length, self.shift = True, None, 0, 0
        self.pause = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    def answer(self, request):
        *_, folder, name = request.path.split("/")
        if folder == "moved":
            request.send_response(302)
            request.send_header("Location", f"{self.url}/{name}")
            request.end_headers()
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        self.requests.append((name, int(wanted[1]) if wanted else 0))
        if name not in self.files:
            request.send_error(404)
            return
        content = self.files[name]
        start = int(wanted[1]) + self.shift if wanted and self.ranges else 0
        if start >= len(content) > 0:
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.added_length is not None:
            request.send_header("Content-Length", str(len(content) - start + self.added_length))
        request.end_headers()
        with suppress(OSError):  # the client may have read enough
            request.wfile.write(content[start:][: self.break_after])
        if self.pause is not None:
            self.pause.wait()
