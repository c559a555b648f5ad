"""A visitor of the page who uses plain HTTP, and so can send any request."""

import contextlib
import json
import secrets

import httpx

from gan_nst.inference.exported import Description, TrainingScale, export
from gan_nst.networks import build
from gan_nst.web.server import serving


def write_generator(path, seed=0, translation="ab"):
    """Writes a tiny generator with random weights; returns its path."""
    import torch

    network = {"name": "resnet", "width": 4, "blocks": 1}
    torch.manual_seed(seed)
    generator = build(network)
    with torch.no_grad():
        for weight in generator.parameters():
            weight.normal_(0, 0.2)
    scale = TrainingScale(load_size=32, crop_size=32)
    description = Description(
        network=network, translation=translation, training_scale=scale, method="cyclegan"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    export(generator, description, path)
    return path


class Visitor:
    """A browser tab without a browser."""

    def __init__(self, address):
        self.address = address
        self.http = httpx.Client(base_url=address, trust_env=False, timeout=60)
        self.session = secrets.token_hex(5)
        config = self.http.get("config").json()
        self.numbers = {action["api_name"]: action["id"] for action in config["dependencies"]}
        self.config = config

    def upload(self, *files):
        """Uploads files, given as paths or as (name, bytes); returns where the page stored them."""
        parts = [file if isinstance(file, tuple) else (file.name, file.read_bytes()) for file in files]
        answer = self.http.post("gradio_api/upload", files=[("files", part) for part in parts])
        answer.raise_for_status()
        return answer.json()

    def join(self, action, *data):
        """Asks for an action; returns the response, whose status says whether it was accepted."""
        question = {"data": list(data), "fn_index": self.numbers[action], "session_hash": self.session}
        return self.http.post("gradio_api/queue/join", json=question)

    def ask(self, action, *data):
        """Returns the outcome of an action."""
        answer = self.join(action, *data)
        assert answer.status_code == 200, answer.text
        return self.outcome()

    def outcome(self):
        """Returns whether the action that was asked for succeeded, and its outputs or {"error": ...}."""
        updates = []
        with self.http.stream("GET", f"gradio_api/queue/data?session_hash={self.session}") as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") in ("process_generating", "process_completed"):
                    updates.append(message)
                if message.get("msg") == "process_completed":
                    return message["success"], message["output"]
        raise AssertionError(updates)

    def translate(self, *uploads, run=0, strength=1, colours="none", scale=1, form="png"):
        files = [upload if isinstance(upload, dict) else as_file(upload) for upload in uploads]
        return self.ask("translate", files, run, strength, colours, scale, form)

    def results(self, *uploads, **options):
        """Returns the files that uploads are translated to: (name, bytes)."""
        succeeded, output = self.translate(*uploads, **options)
        assert succeeded, output
        files = output["data"][3]["value"]
        return [
            (file["orig_name"], self.http.get(f"gradio_api/file={file['path']}").content) for file in files
        ]


def as_file(path):
    """Returns a file as the page's requests name it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@contextlib.contextmanager
def visiting(choices, options):
    with serving(choices, options) as (address, _):
        visitor = Visitor(address)
        with contextlib.closing(visitor.http):
            yield visitor
