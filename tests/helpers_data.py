"""Images and data settings for the tests of the data package."""

import io
import zipfile
from pathlib import Path

import numpy as np

from gan_nst.data.cache import Entry
from gan_nst.data.domains import DataSettings, Folder
from gan_nst.images.files import write_image


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def coordinates(height, width):
    """An image whose red and green are the row and column of each pixel."""
    rows, columns = np.indices((height, width))
    return np.stack([rows, columns, np.zeros_like(rows)], 2).astype(np.uint8)


def fill(folder, count, size=(12, 14), first=0):
    """Writes `count` different images; returns their paths."""
    paths = [Path(folder, f"{number:03d}.png") for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        write_image(noise(*size, seed=number), path)
    return paths


def folder_of(files):
    """These files, which share a folder, as a folder of a data set."""
    return Folder(files[0].parent, tuple(file.name for file in files))


def tiny_settings(root=Path("nowhere"), **options):
    return DataSettings(root=root, **{"load_size": 10, "crop_size": 8, **options})


def rewrite_cache(path, change):
    """Replaces the members of the archive at a cache's end; `change` takes and returns them by name."""
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        pixels = content[: min(member.header_offset for member in archive.infolist())]
        members = {name: archive.read(name) for name in archive.namelist()}
    with open(path, "wb") as file:
        file.write(pixels)
        with zipfile.ZipFile(file, "w") as archive:
            for name, member in change(members).items():
                archive.writestr(name, member)


def with_entries(row=slice(None), **columns):
    """A change of some columns in a cache's entries, for `rewrite_cache`: of one row, or of all."""

    def change(members):
        rows = np.frombuffer(members["entries"], np.int64).reshape(-1, len(Entry._fields)).copy()
        for name, value in columns.items():
            rows[row, Entry._fields.index(name)] = value
        return {**members, "entries": rows.tobytes()}

    return change


class Bomb:
    """Creates a folder when it is unpickled carelessly."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (Path(self.folder),)
