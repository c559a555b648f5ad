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
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from gan_nst.core.errors import SettingsError, reason
from gan_nst.core.options import AppOptions
from gan_nst.core.terminal import stop_on_signals
from gan_nst.web.jobs import Choice, Jobs, find_choices

log = logging.getLogger(__name__)

_SWEEP_EVERY = 600  # seconds
_LARGEST_REQUEST = 1_000_000  # bytes, uploads aside
# A browser loads nothing from other servers.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


def app(runs: Sequence[Path | str], options: AppOptions = AppOptions()) -> None:
    """Serves a page that translates images, until SIGINT or SIGTERM.

    runs: runs, checkpoints, exported generators, or folders of them. Raises GanNstError for every mistake in what was
    given.
    """
    choices = find_choices(runs)
    with stop_on_signals() as stopped, serving(choices, options) as (address, server):
        log.info(f"{len(choices)} to choose from; open {address} in a browser (press Ctrl-C to stop)")
        if not _is_loopback(options.host):
            log.warning(f"anyone who can reach {options.host} can use this page; it has no password")
        while not stopped and server.is_alive():
            server.join(0.2)
    log.info("stopped")


@contextmanager
def serving(choices: Sequence[Choice], options: AppOptions) -> Iterator[tuple[str, threading.Thread]]:
    """Serves the page within the context. Yields its address and the server's thread.

    Uploads and results are in a temporary folder, which is deleted at the end. Raises SettingsError if Gradio is
    missing or the port is taken.
    """
    # Read when Gradio is imported: it reports nothing, and does not look for updates.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise SettingsError('the page needs Gradio: pip install "gan_nst[app]"') from None
    port = _free_port(options.host, options.port)
    with (
        tempfile.TemporaryDirectory(prefix="gan_nst-app-", ignore_cleanup_errors=True) as folder,
        patch.dict(
            os.environ,
            GRADIO_TEMP_DIR=os.path.realpath(folder),
            GRADIO_EXAMPLES_CACHE=folder,
            GRADIO_ALLOWED_PATHS="",
            no_proxy="*",  # Gradio asks its own server whether it is up
        ),
    ):
        jobs = Jobs(choices, Path(folder).resolve())
        # Without a running event loop, Gradio makes one for every lock and closes none.
        page = asyncio.run(_launch(jobs, options, port))
        ended = threading.Event()

        def sweep() -> None:
            while not ended.wait(_SWEEP_EVERY):
                jobs.delete_old()

        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        try:
            yield page.local_url, page.server.thread
        finally:
            ended.set()
            sweeper.join()
            page.close(verbose=False)


async def _launch(jobs: Jobs, options: AppOptions, port: int) -> Any:
    """Returns Gradio's Blocks, which serve the page from their own thread."""
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware

    from gan_nst.web.page import STYLE, THEME, make_page

    checks = Middleware(BaseHTTPMiddleware, dispatch=partial(_own_requests_only, options.host))
    page = make_page(jobs, options)
    page.launch(
        server_name=f"[{options.host}]" if ":" in options.host else options.host,
        server_port=port,
        max_file_size=options.max_upload * 1_000_000,
        allowed_paths=[],
        strict_cors=True,
        app_kwargs={"middleware": [checks], "openapi_url": None},
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
    return page


def _free_port(host: str, port: int) -> int:
    """Returns the port, or a free one for 0, if the server can listen there. Raises SettingsError otherwise."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as listening:
            return int(listening.getsockname()[1])
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"--host {host} --port {port}: cannot listen there ({reason(error)}); "
            "choose another --port, or 0 for any free one"
        ) from None


def _is_loopback(host: str | None) -> bool:
    """Whether a name or address reaches this machine from itself only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


async def _own_requests_only(host: str, request: Any, call_next: Any) -> Any:
    """Refuses requests from other sites, large ones, and those that name anything but an uploaded file.

    Gradio's CORS check hides an answer from the other site whose request it served, and trusts the Host header, which
    a site that has its own name for this machine controls (DNS rebinding). Gradio itself would download a web
    address, and reads requests of any size.
    """
    from starlette.responses import JSONResponse

    try:
        asked, origin = request.url, request.headers.get("origin")
        if _is_loopback(host) and not _is_loopback(asked.hostname):
            raise ValueError("by another name of this machine")
        if origin is not None and urlsplit(origin).netloc != asked.netloc:
            raise ValueError("from another site")
        if "://" in request.scope["path"]:
            raise ValueError("for a web address")
        if request.method == "POST" and request.scope["path"] != "/gradio_api/upload":
            size = int(request.headers.get("content-length", _LARGEST_REQUEST + 1))
            if size > _LARGEST_REQUEST or "transfer-encoding" in request.headers:
                raise ValueError("large, or of unknown size")
            json.loads(await request.body() or b"{}", object_hook=_keep_upload)
    except (ValueError, OSError, RuntimeError):
        # The page shows the detail.
        detail = "not a request of this page, or its files were deleted after a day; upload them again"
        return JSONResponse({"detail": detail}, 403)
    answer = await call_next(request)
    answer.headers["content-security-policy"] = _POLICY
    return answer


def _keep_upload(value: dict[str, Any]) -> dict[str, Any]:
    """Keeps the file that a part of a request names for another day. Raises ValueError if it is not an upload."""
    if "path" in value:
        file = Path(str(value["path"])).resolve()
        if not file.is_relative_to(os.environ["GRADIO_TEMP_DIR"]) or not file.is_file():
            raise ValueError("not an uploaded file")
        os.utime(file)
    return value
