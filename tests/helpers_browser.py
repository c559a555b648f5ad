"""A real browser, driven by Chromium's DevTools protocol over a pair of pipes: no package is needed for it."""

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

    requested: the addresses that its pages asked for. console: errors and warnings on the console, and uncaught ones.
    """

    def __init__(self, width=1200, height=900):
        self.requested, self.console = [], []
        self._answers, self._number, self._news = {}, 0, threading.Condition()
        self._profile = tempfile.mkdtemp(prefix="gan_nst-browser-")
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
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
        # The protocol is spoken over the descriptors 3 and 4.
        move = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", move, CHROMIUM, *switches],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out = os.fdopen(ours_out, "wb", buffering=0)
        self._in = os.fdopen(ours_in, "rb")
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
        """A command's result; fails on its error."""
        with self._news:
            self._number += 1
            number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        with self._news:
            assert self._news.wait_for(lambda: number in self._answers, wait), f"no answer to {method}"
            answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, address):
        self.send("Page.navigate", url=address)

    def run(self, script):
        """The value of a piece of JavaScript; a promise's, when it is kept."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, script, timeout=60):
        """Waits until a piece of JavaScript is true, and returns its value."""
        until = time.monotonic() + timeout
        while True:
            value = self.run(script)
            if value:
                return value
            assert time.monotonic() < until, f"{script} stayed {value!r}; the page says: " + self.run(
                "document.body.innerText"
            )
            time.sleep(0.1)

    def upload(self, selector, *paths):
        """Gives files to an <input type=file>."""
        paths = [str(path.resolve()) for path in paths]  # the browser refuses to read one with ".." in it
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=paths)

    def fetch(self, address):
        """The bytes that the page gets from an address."""
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
        """Writes the whole page as PNG."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _listen(self):
        rest = b""
        while piece := os.read(self._in.fileno(), 1 << 16):
            *messages, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, messages):
                self._take(message)
        self._in.close()

    def _take(self, message):
        if "id" in message:
            with self._news:
                self._answers[message["id"]] = message
                self._news.notify_all()
            return
        about = message.get("params", {})
        if message["method"] == "Network.requestWillBeSent":
            self.requested.append(about["request"]["url"])
        elif message["method"] == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.console.append(about["entry"]["text"] + " " + about["entry"].get("url", ""))
        elif message["method"] == "Runtime.exceptionThrown":
            self.console.append(json.dumps(about["exceptionDetails"]))

    def outside(self, address):
        """Which of the addresses asked for lie elsewhere."""
        inside = (address, "data:", "blob:", "about:", "chrome")
        return [url for url in self.requested if not url.startswith(inside)]
