"""`gan-nst app`: a page in the browser to try translators on one's own images."""

import asyncio
import ipaddress
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan_nst.core.errors import SettingsError, reason
from gan_nst.core.options import AppOptions
from gan_nst.core.terminal import stop_on_signals
from gan_nst.web.gate import Gate
from gan_nst.web.jobs import Jobs, Store
from gan_nst.web.offer import Offer, make_offer
from gan_nst.web.page import look, make_page

log = logging.getLogger(__name__)

_COUNT = 20  # images at a time
_MEGABYTE = 1_000_000
_KEPT = 40  # times the largest upload: of uploads and results on the disk


@dataclass(frozen=True)
class Limits:
    """What visitors may send: an upload's bytes, an image's pixels."""

    upload: int = AppOptions.max_upload * _MEGABYTE
    pixels: int = AppOptions.max_pixels


def app(
    runs: Sequence[Path | str],
    options: AppOptions = AppOptions(),
) -> None:
    """Serves a page that translates images, until SIGINT or SIGTERM.

    runs: runs, checkpoints, exported generators' files, or folders with such. port: 0 takes a free one. max_upload: of
    an image's file, in megabytes. Raises GanNstError, one line, for every mistake in what was given.
    """
    offer, host, port = make_offer(runs, options), options.host, options.port
    limits = Limits(options.max_upload * _MEGABYTE, options.max_pixels)
    with stop_on_signals() as stop, serving(offer, host, port, limits) as (address, server):
        log.info(f"{len(offer.sources)} to choose from; open {address} in a browser (Ctrl-C ends)")
        if not _is_loopback(host):
            log.warning(f"whoever reaches {host}, port {port}, can use this page; it has no password")
        while stop.signal is None and server.is_alive():
            server.join(0.2)
    log.info("stopped")


@contextmanager
def serving(
    offer: Offer, host: str = "127.0.0.1", port: int = 0, limits: Limits | None = None
) -> Iterator[tuple[str, threading.Thread]]:
    """Within the context the page is served; yields its address and the thread that serves it.

    Uploads and results lie in a temporary folder, which is removed at the end. Raises SettingsError when Gradio is
    missing or the port is taken.
    """
    limits = limits or Limits()
    _find_gradio()
    import uvicorn

    with (
        _bind(host, port) as listening,
        tempfile.TemporaryDirectory(prefix="gan_nst-app-", ignore_cleanup_errors=True) as name,
        _gradio_folder(name),
    ):
        store = Store(Path(name), _KEPT * limits.upload)
        # Gradio makes an event loop for every lock where none is running, and closes none.
        page = asyncio.run(_mounted(Jobs(offer, store, limits.pixels, limits.upload, _COUNT)))
        hosts = {"127.0.0.1", "localhost", "[::1]", host} if _is_loopback(host) else None
        gate = Gate(page, store.folder, _COUNT * limits.upload + _MEGABYTE, hosts, store.make_room)
        options = {"log_config": None, "log_level": "warning", "access_log": False}
        server = uvicorn.Server(uvicorn.Config(gate, timeout_graceful_shutdown=1, **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield _address(host, listening), thread
        finally:
            logging.getLogger("uvicorn.error").setLevel(
                logging.CRITICAL
            )  # open pages are cut off, as they must
            server.should_exit = True
            thread.join(10)


async def _mounted(jobs: Jobs) -> Any:
    """The page as an ASGI application."""
    import gradio as gr
    from fastapi import FastAPI

    return gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        make_page(jobs),
        path="/",
        allowed_paths=[],
        blocked_paths=[],
        max_file_size=jobs.upload,
        enable_monitoring=False,
        run_history=False,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        **look(),
    )


def _find_gradio() -> None:
    """Sets what Gradio reads when it is imported: it tells nobody of its use, and asks nobody for news."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise SettingsError('the page needs Gradio: pip install "gan_nst[app]"') from None


@contextmanager
def _gradio_folder(folder: str) -> Iterator[None]:
    """Within the context Gradio keeps what it stores in a folder."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


def _bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises SettingsError for a port that is taken and a host that is not this machine's."""
    if port > 65535:
        raise SettingsError(f"--port {port}: ports end at 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"--host {host} --port {port}: cannot be listened on ({reason(error)}); give another --port, 0 for any"
        ) from None


def _address(host: str, listening: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listening.getsockname()[1]}/"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
