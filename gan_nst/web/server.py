"""Serves the page with Gradio's own server, limits and temporary files, and adds the checks Gradio lacks."""

import asyncio
import ipaddress
import json
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gan_nst.core.errors import SettingsError, reason
from gan_nst.core.options import AppOptions
from gan_nst.core.terminal import stop_on_signals
from gan_nst.web.jobs import Jobs, Translators, find_translators

log = logging.getLogger(__name__)

_KEPT = 24 * 3600  # seconds that uploads and results are kept
# A browser loads nothing from elsewhere.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


def app(runs: Sequence[Path | str], options: AppOptions = AppOptions()) -> None:
    """Serves a page that translates images, until SIGINT or SIGTERM.

    runs: runs, checkpoints, exported generators, or folders of them. Raises GanNstError for every mistake in what was
    given.
    """
    translators = find_translators(runs, options)
    with stop_on_signals() as stop, serving(translators, options) as (address, server):
        log.info(
            f"{len(translators.sources)} to choose from; open {address} in a browser (press Ctrl-C to stop)"
        )
        if not _is_loopback(options.host):
            log.warning(f"anyone who can reach {options.host} can use this page; it has no password")
        while stop.signal is None and server.is_alive():
            server.join(0.2)
    log.info("stopped")


@contextmanager
def serving(translators: Translators, options: AppOptions) -> Iterator[tuple[str, threading.Thread]]:
    """Serves the page within the context. Yields its address and the server's thread.

    Uploads and results are in a temporary folder, which is deleted at the end. Raises SettingsError if Gradio is
    missing or the port is taken.
    """
    # Read when Gradio is imported: it reports nothing, and does not look for updates.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise SettingsError('the page needs Gradio: pip install "gan_nst[app]"') from None
    port = _free_port(options.host, options.port)
    with (
        tempfile.TemporaryDirectory(prefix="gan_nst-app-", ignore_cleanup_errors=True) as folder,
        _environment(
            GRADIO_TEMP_DIR=folder,
            GRADIO_EXAMPLES_CACHE=folder,
            GRADIO_ALLOWED_PATHS="",
            no_proxy="*",  # Gradio asks its own server whether it is up
        ),
    ):
        jobs = Jobs(translators, Path(folder).resolve(), options.max_pixels)
        # Without a running event loop, Gradio makes one for every lock and closes none.
        blocks = asyncio.run(_launch(jobs, options, port))
        try:
            yield blocks.local_url, blocks.server.thread
        finally:
            blocks.close(verbose=False)


async def _launch(jobs: Jobs, options: AppOptions, port: int) -> Any:
    """Returns Gradio's Blocks, which serve the page from a thread of their own."""
    from gan_nst.web.page import STYLE, THEME, make_page

    blocks = make_page(jobs, options.max_upload, _KEPT)
    blocks.launch(
        server_name=f"[{options.host}]" if ":" in options.host else options.host,
        server_port=port,
        max_file_size=options.max_upload * 1_000_000,
        allowed_paths=[],
        strict_cors=True,
        app_kwargs={"middleware": _checks(options.host), "openapi_url": None},
        theme=THEME,
        css=STYLE,
        footer_links=[],
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=False,
        share=False,
        show_error=False,
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )
    return blocks


def _free_port(host: str, port: int) -> int:
    """Returns the port, or a free one for 0, if the server can listen there. Raises SettingsError otherwise."""
    if port > 65535:
        raise SettingsError(f"--port {port}: give at most 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        with socket.create_server((address[0], port), family=family) as listening:
            return int(listening.getsockname()[1])
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"--host {host} --port {port}: cannot listen there ({reason(error)}); "
            "choose another --port, or 0 for any free one"
        ) from None


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _checks(host: str) -> list[Any]:
    """Returns the middleware that makes the page answer requests of its own only.

    Gradio's CORS check hides an answer from the other site whose request it served, and trusts the Host header, which
    a site with a name of its own for this machine controls (DNS rebinding).
    """
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    hosts = ["localhost", "127.0.0.1", "::1", "[::1]", host] if _is_loopback(host) else ["*"]
    return [
        Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        Middleware(BaseHTTPMiddleware, dispatch=_own_requests_only),
    ]


async def _own_requests_only(request: Any, call_next: Any) -> Any:
    """Refuses requests from other sites, and those that name anything but an uploaded file.

    Gradio itself would download a web address, and a folder among its files would end its deletion of old files.
    """
    from starlette.responses import PlainTextResponse

    path, origin = request.scope["path"], request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers["host"].lower():
        return PlainTextResponse("this page answers its own requests only\n", 403)
    if path.startswith("/gradio_api/file=http"):
        return PlainTextResponse("not an uploaded file\n", 403)
    if request.method == "POST" and path != "/gradio_api/upload":
        try:
            json.loads(await request.body() or b"{}", object_hook=_check_path)
        except (ValueError, OSError, RuntimeError):
            return PlainTextResponse("not a request of this page, or not an uploaded file\n", 403)
    answer = await call_next(request)
    answer.headers["content-security-policy"] = _POLICY
    return answer


def _check_path(value: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError if a part of a request names a file that is not in Gradio's folder."""
    path = value.get("path")
    if path is not None:
        file = Path(str(path)).resolve()
        if Path(os.environ["GRADIO_TEMP_DIR"]).resolve() not in file.parents or not file.is_file():
            raise ValueError("not an uploaded file")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
