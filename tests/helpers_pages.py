"""Parses HTML pages, and opens them in a browser."""

import re
import shutil
import socketserver
import subprocess
import threading
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
BLOCKS = {"article", "div", "dl", "figure", "h1", "h2", "h3", "ol", "p", "pre", "section", "table", "ul"}


class Page(HTMLParser):
    """A parsed page. Tags that are not closed, closed twice or wrongly nested fail the test.

    tags: (tag, attributes) in order. tables: rows of cell texts. headings: of the sections. text: all of it, without
    the style.
    """

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.tables, self.headings = [], [], [], []
        self.style, self.text = "", ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert not (tag in BLOCKS and "p" in self.open), f"<{tag}> in <p>"
        assert len({name for name, _ in attributes}) == len(attributes), f"<{tag}> repeats an attribute"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert tag not in VOID
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            self.style += data
            return
        self.text += data
        if "h2" in self.open:
            self.headings.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def outside(page):
    """Returns what a page would execute, or load from other servers."""
    found = [
        tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "embed", "base", "form")
    ]
    texts = [page.style]
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name.startswith("on"):
                found.append(f"{tag} {name}")
            if name in ("src", "srcset", "href", "xlink:href", "action", "poster", "data", "background"):
                found += [] if (value or "").startswith(("data:", "#")) else [f"{tag} {name}={value}"]
            if name == "style":
                texts.append(value)
    for text in texts:
        found += re.findall(r"@import.*", text)
        found += [
            url for url in re.findall(r"url\(\s*['\"]?([^)]*)", text) if not url.startswith(("data:", "#"))
        ]
    return found


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH"
)
# Hosts that Chromium itself may contact in spite of the switches.
CHROMIUM_HOSTS = re.compile(r"(^|\.)(google|googleapis|gstatic|gvt1|google-analytics)\.com(:\d+)?$")


class Proxy(socketserver.ThreadingTCPServer):
    """Records the host of each request, and refuses it."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Refusal)
        self.hosts = []


class Refusal(socketserver.StreamRequestHandler):
    timeout = 20

    def handle(self):
        try:
            words = self.rfile.readline().decode("latin-1").split()
        except OSError:
            return
        if not words:
            return  # Chromium opened the connection ahead of a request
        address = words[1] if len(words) > 1 else words[0]
        self.server.hosts.append(re.sub(r"^\w+://|/.*", "", address))
        self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def browse(html, folder):
    """Opens a page in Chromium; returns the hosts it contacts, its console lines, and the screenshot's pixels."""
    (folder / "page.html").write_text(html, encoding="utf-8")
    image = folder / "page.png"
    with Proxy() as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            result = subprocess.run(
                [
                    CHROMIUM,
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--no-first-run",
                    "--disable-default-apps",
                    "--disable-sync",
                    "--enable-logging=stderr",
                    "--v=0",
                    f"--user-data-dir={folder / 'profile'}",
                    f"--proxy-server=127.0.0.1:{proxy.server_address[1]}",
                    "--proxy-bypass-list=<-loopback>",  # for requests to this machine too
                    "--window-size=900,1200",
                    f"--screenshot={image}",
                    (folder / "page.html").as_uri(),
                ],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=240,
                check=False,
            )
        finally:
            proxy.shutdown()
            thread.join()
    assert image.exists(), result.stderr[-2000:]
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    with Image.open(image) as shot:
        pixels = np.asarray(shot.convert("RGB"))
    return [host for host in proxy.hosts if not CHROMIUM_HOSTS.search(host)], console, pixels


def inked(pixels):
    """Returns the share of pixels that are not white."""
    return float((pixels < 250).any(2).mean())
