"""A real browser, driven over a pair of pipes with Chromium's DevTools protocol, which needs no package."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

from helpers_pages import CHROMIUM


class Browser:
    """One tab of a headless Chromium.

    requested: the URLs that its pages requested. console: errors, warnings and uncaught exceptions.
    """

    def __init__(self, width=1200, height=900):
        self.requested, self.console = [], []
        self._answers, self._number, self._changed = {}, 0, threading.Condition()
        self._profile = tempfile.mkdtemp(prefix="gan_nst-browser-")
        browser_in, our_out = os.pipe()
        our_in, browser_out = os.pipe()
        switches = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-default-apps",
            "--disable-sync",
            "--no-first-run",
            f"--window-size={width},{height}",
            f"--user-data-dir={self._profile}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        # The protocol uses file descriptors 3 and 4.
        redirect = f'exec "$0" "$@" 3<&{browser_in} 4>&{browser_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirect, CHROMIUM, *switches],
            pass_fds=(browser_in, browser_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(browser_in)
        os.close(browser_out)
        self._out = os.fdopen(our_out, "wb", buffering=0)
        self._in = os.fdopen(our_in, "rb")
        self._session = None
        threading.Thread(target=self._listen, daemon=True).start()
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, AssertionError):
            self._session = None
            self.send("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        self._out.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    def send(self, method, *, wait=60, **parameters):
        """Sends a command and returns its result; an error fails the test."""
        with self._changed:
            self._number += 1
            number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        with self._changed:
            assert self._changed.wait_for(lambda: number in self._answers, wait), f"no answer to {method}"
            answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, address):
        self.send("Page.navigate", url=address)

    def run(self, script):
        """Runs JavaScript and returns its value, of a promise once it is fulfilled."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, script, timeout=60):
        """Waits until a JavaScript expression is true, and returns its value."""
        deadline = time.monotonic() + timeout
        while True:
            value = self.run(script)
            if value:
                return value
            assert time.monotonic() < deadline, f"{script} is still {value!r}; the page shows: " + self.run(
                "document.body.innerText"
            )
            time.sleep(0.1)

    def upload(self, selector, *paths):
        """Selects files in an <input type=file>."""
        paths = [str(path.resolve()) for path in paths]  # the browser refuses paths with ".."
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=paths)

    def fetch(self, address):
        """Returns the bytes that the page fetches from a URL."""
        script = f"""fetch({json.dumps(address)}).then(answer => answer.blob()).then(blob =>
            new Promise(done => {{
                const reader = new FileReader();
                reader.onload = () => done(reader.result);
                reader.readAsDataURL(blob);
            }}))"""
        return base64.b64decode(self.run(script).split(",", 1)[1])

    def resize(self, width, height, mobile=False):
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )

    def screenshot(self, path):
        """Writes a screenshot of the full page as PNG."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _listen(self):
        buffer = b""
        while piece := os.read(self._in.fileno(), 1 << 16):
            *messages, buffer = (buffer + piece).split(b"\0")
            for message in map(json.loads, messages):
                self._handle(message)
        self._in.close()

    def _handle(self, message):
        if "id" in message:
            with self._changed:
                self._answers[message["id"]] = message
                self._changed.notify_all()
            return
        params = message.get("params", {})
        if message["method"] == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif message["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.console.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
        elif message["method"] == "Runtime.exceptionThrown":
            self.console.append(json.dumps(params["exceptionDetails"]))

    def outside(self, address):
        """Returns the requested URLs that are not on the page's own server."""
        inside = (address, "data:", "blob:", "about:", "chrome")
        return [url for url in self.requested if not url.startswith(inside)]
