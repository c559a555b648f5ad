"""A local web server that can fail in every way a download server may.

Run as `helpers_server.py FILE SPEED`, it serves one file, prints its address, and stops at the end of its input.
"""

import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Fault:
    """What goes wrong with one request; the default is nothing.

    after: bytes of the body before the connection breaks, or is silent for `pause` seconds. status: instead of 200.
    redirect: the address to redirect to. length, content_range: what the headers claim. no_range: a range is ignored.
    replace: the file's new contents, from this request on.
    """

    after: int | None = None
    pause: float = 0
    status: int | None = None
    redirect: str | None = None
    length: int | None = None
    content_range: str | None = None
    no_range: bool = False
    replace: bytes | None = None


@dataclass
class Site:
    """The files by path, the faults of the next requests, and the requests so far: (path, its Range).

    mark: how the server distinguishes versions: "etag", "date", "weak" or None. chunked: without a length.
    speed: bytes per second.
    """

    files: dict = field(default_factory=dict)
    faults: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    mark: str | None = "etag"
    ranges: bool = True
    honors_if_range: bool = True
    chunked: bool = False
    speed: float | None = None
    address: str = ""


@contextmanager
def serving(**options):
    """A site that is served until the end of the context."""
    site = Site(**options)

    class Handler(_Handler):
        pass

    Handler.site = site
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        site, path = self.site, self.path.split("?")[0]
        site.requests.append((path, self.headers["Range"]))
        fault = site.faults.pop(0) if site.faults else Fault()
        self.close_connection = True
        if fault.replace is not None:
            site.files[path] = fault.replace
        if fault.redirect is not None:
            self._begin(302, {"Location": fault.redirect, "Content-Length": "0"})
        elif fault.status is not None or path not in site.files:
            self._answer(fault.status or 404, b"<html>sorry</html>", {}, Fault())
        else:
            self._file(site.files[path], fault)

    def _file(self, data, fault):
        marks = self._marks(data)
        start = self._start(marks) if self.site.ranges and not fault.no_range else 0
        if start >= len(data) > 0:
            self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"}, Fault())
        elif start:
            claimed = fault.content_range or f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._answer(206, data[start:], marks | {"Content-Range": claimed}, fault)
        else:
            self._answer(200, data, marks, fault)

    def _marks(self, data):
        version = hash(data) % 10**8
        stamp = f"Mon, 01 Jan 2024 {version % 24:02}:{version % 60:02}:{version // 60 % 60:02} GMT"
        return {
            "etag": {"ETag": f'"{version}"', "Last-Modified": stamp},
            "date": {"Last-Modified": stamp},
            "weak": {"ETag": f'W/"{version}"'},
            None: {},
        }[self.site.mark]

    def _start(self, marks):
        """Where the requested range begins; 0 if the complete file is requested, or the file has changed."""
        wanted, condition = self.headers["Range"], self.headers["If-Range"]
        if wanted is None or (self.site.honors_if_range and condition not in (None, *marks.values())):
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def _begin(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _answer(self, status, body, headers, fault):
        if self.site.chunked and status == 200:
            headers = headers | {"Transfer-Encoding": "chunked"}
        else:
            headers = headers | {"Content-Length": str(len(body) if fault.length is None else fault.length)}
        self._begin(status, headers)
        sent = body if fault.after is None else body[: fault.after]
        try:
            for piece in self._paced(sent):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._in_chunks(headers) else piece)
                self.wfile.flush()
            if fault.pause:
                time.sleep(fault.pause)
            elif fault.after is None and self._in_chunks(headers):
                self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has hung up

    def _in_chunks(self, headers):
        return "Transfer-Encoding" in headers

    def _paced(self, body):
        if self.site.speed is None:
            return [body] if body else []
        step = max(1, int(self.site.speed / 50))

        def pieces():
            for place in range(0, len(body), step):
                time.sleep(0.02)
                yield body[place : place + step]

        return pieces()


if __name__ == "__main__":
    with serving(
        files={"/pets.zip": Path(sys.argv[1]).read_bytes()}, speed=float(sys.argv[2]) or None
    ) as site:
        print(site.address, flush=True)
        sys.stdin.read()
