"""Tensors too large for the memory, kept in a file and read and written by rows."""

import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from gan_nst.core.errors import DataError


class Store:
    """A tensor (1, c, height, w) in a file that has no name, and is gone when it is closed or the process ends.

    Read and written with calls, not mapped into memory, so that what the system caches of it is not this process's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shape = (0, 0)  # width and channels, known since the first write
        self._dtype = torch.float32
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (see close)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot hold a scratch file ({error.strerror}); give --scratch"
            ) from None

    def write(self, rows: range, x: Tensor) -> None:
        """Keeps x, (1, c, len(rows), w), as these rows. Raises DataError when the disk is full."""
        pixels = x.detach().permute(0, 2, 3, 1).contiguous().cpu()
        self._shape, self._dtype = (pixels.shape[2], pixels.shape[3]), pixels.dtype
        data = _bytes(pixels)
        self._file.seek(rows.start * self._row)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise DataError(
                f"{self._folder}: the scratch file could not be written ({error.strerror}); give another folder "
                "with --scratch"
            ) from None

    def read(self, rows: range) -> Tensor:
        """These rows, (1, c, len(rows), w), with a pixel's channels side by side in memory."""
        pixels = torch.empty((1, len(rows), *self._shape), dtype=self._dtype)
        data = _bytes(pixels)
        self._file.seek(rows.start * self._row)
        while data:
            got = self._file.readinto(data)
            assert got, "rows are written before they are read"
            data = data[got:]
        return pixels.permute(0, 3, 1, 2)

    def close(self) -> None:
        """Gives the disk's space back."""
        self._file.close()

    @property
    def _row(self) -> int:
        """Bytes."""
        return self._shape[0] * self._shape[1] * self._dtype.itemsize


def _bytes(x: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return memoryview(x.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def require_space(folder: Path, needed: int) -> None:
    """Raises DataError where the folder's disk has less than `needed` bytes left."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(f"{folder}: cannot hold a scratch file ({error.strerror}); give --scratch") from None
    if free < needed:
        raise DataError(
            f"{folder}: {free / 1e6:,.0f} MB free, and the scratch file takes {needed / 1e6:,.0f} MB; give a folder on "
            "another disk with --scratch, more --memory, or --fast"
        )
