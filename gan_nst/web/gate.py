"""What the page lets through: its own requests, of bounded size, that name no file but its own."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What the browser's part of Gradio asks for; the rest of Gradio's routes (proxies, history, recordings, links) is shut.
_READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(static|assets|svelte)/.*"
    r"|/gradio_api/(info|app_id|startup-events|upload_progress|queue/data|theme\.css)/?"
    r"|/gradio_api/heartbeat/[\w-]+|/gradio_api/file=.+",
    re.DOTALL,
)
_WRITE = re.compile(r"/gradio_api/(upload|queue/join|run/[\w-]+|cancel|reset)/?")
_UPLOAD = re.compile(r"/gradio_api/upload/?")
_FILE = "/gradio_api/file="
_LARGEST_QUESTION = 256 * 1024  # bytes of JSON

_HEADERS = [
    # Nothing is loaded from elsewhere, and nothing told there.
    (b"content-security-policy", b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-dns-prefetch-control", b"off"),
]

Message = dict[str, Any]


class Refused(Exception):
    """A request that is not let through: its HTTP status, and one line that says why.

    unread: whether its body is still to come.
    """

    def __init__(self, status: int, line: str, unread: bool = True) -> None:
        super().__init__(line)
        self.status, self.unread = status, unread


def file_in(folder: Path, path: object) -> Path | None:
    """The file that a visitor's text names, links followed, if it lies in a folder, which is resolved; else None."""
    try:
        found = Path(str(path)).resolve()
        ours = isinstance(path, str | Path) and folder in found.parents and found.is_file()
    except (OSError, ValueError, RuntimeError):
        return None
    return found if ours else None


class Gate:
    """An ASGI application in front of another one.

    folder: what the other may open for a visitor lies in it. largest: of an upload, in bytes. hosts: the names by which
    the page may be asked for; None for any. make_room: called ahead of each upload and after it, in a thread.
    """

    def __init__(
        self, app: Any, folder: Path, largest: int, hosts: set[str] | None, make_room: Callable[[], object]
    ) -> None:
        self.app = app
        self.folder = folder.resolve()
        self.largest = largest
        self.hosts = hosts
        self.make_room = make_room

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        body = _Body(receive)

        async def send_guarded(message: Message) -> None:
            if body.left < 0:  # what the application says of a body cut short
                return
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            await self._let_in(scope, body, send_guarded)
        except Refused as refusal:
            if refusal.unread:
                await _discard(receive, 4 * self.largest)
            said = f"{refusal}\n".encode()
            headers = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(said)).encode()),
                (b"connection", b"close"),
            ]
            await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
            await send({"type": "http.response.body", "body": said})

    async def _let_in(self, scope: Message, body: "_Body", send: Any) -> None:
        """Hands a request on to the application. Raises Refused."""
        if scope["type"] != "http":
            raise Refused(404, "no such page")
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        self._check_host(headers)
        if "transfer-encoding" in headers:  # it would overrule the length; no browser sends one
            raise Refused(411, "a request that does not say its length")
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD") and _READ.fullmatch(path):
            if path.startswith(_FILE) and not self._is_ours(path.removeprefix(_FILE)):
                raise Refused(403, "no such file here")
            await self.app(scope, body.receive, send)
            return
        if method != "POST" or not _WRITE.fullmatch(path):
            raise Refused(404, "no such page")
        if not _UPLOAD.fullmatch(path):
            body.bound(headers, _LARGEST_QUESTION)
            await self.app(scope, await self._question(body), send)
            return
        body.bound(headers, self.largest)
        await asyncio.to_thread(self.make_room)
        try:
            await self.app(scope, body, send)
        finally:  # others may have uploaded meanwhile
            await asyncio.to_thread(self.make_room)

    def _check_host(self, headers: dict[str, str]) -> None:
        """Pages of other sites can make a browser ask this one, even by a name of their own that leads here."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts is not None and re.sub(r":\d*$", "", host).lower() not in self.hosts:
            raise Refused(403, "this page answers to this machine only; --host opens it to others")
        if origin is not None and origin.split("://")[-1].lower() != host.lower():
            raise Refused(403, "this page answers to its own requests only")

    async def _question(self, receive: Any) -> Any:
        """Reads a question whole, sees that it names no file but ours, and hands it on."""
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise Refused(400, "not a whole request", unread=False)
            body += message.get("body", b"")
            more = message.get("more_body", False)
        try:
            named = list(_paths(json.loads(body or b"{}")))
        except (ValueError, RecursionError):
            raise Refused(400, "not a readable request", unread=False) from None
        if not all(self._is_ours(path) for path in named):
            raise Refused(403, "no such file here", unread=False)
        read = False

        async def replay() -> Message:
            nonlocal read
            if read:
                message: Message = await receive()
                return message
            read = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return replay

    def _is_ours(self, path: object) -> bool:
        return file_in(self.folder, path) is not None


class _Body:
    """What a request sends, message by message, counted: what it said of its length is not relied on."""

    def __init__(self, receive: Any) -> None:
        self.receive = receive
        self.largest = self.left = 0  # bytes

    def bound(self, headers: dict[str, str], largest: int) -> None:
        """Lets so many bytes come. Raises Refused for a request that says it has more, or does not say."""
        length = headers.get("content-length", "")
        if not length.isdecimal():
            raise Refused(411, "a request that does not say its length")
        self.largest = self.left = largest
        if int(length) > largest:
            raise self._too_large()

    async def __call__(self) -> Message:
        message: Message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise self._too_large()
        return message

    def _too_large(self) -> Refused:
        return Refused(413, f"larger than the {self.largest} bytes that this page takes")


async def _discard(receive: Any, most: int) -> None:
    """Reads what a request still sends: a browser that is cut off while it sends does not read the refusal."""
    while most > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        most -= len(message.get("body", b""))


def _paths(value: Any) -> Iterator[Any]:
    """The paths of all files that a question names, however deep."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _paths(part)
