"""The file that a command writes its results into, its `--json`."""

import tempfile
from pathlib import Path

from gan_nst.core.errors import SettingsError, unwritten


def refuse_unwritable(json: Path | str | None) -> None:
    """Raises SettingsError where a file cannot be written, before a command works for it."""
    if json is None:
        return
    path = Path(json)
    try:
        if not path.absolute().parent.is_dir():
            raise SettingsError(f"{json}: no such folder to write it into")
        if path.exists() and not path.is_file():  # a device would be replaced
            raise SettingsError(f"{json}: not a file (- is standard output)")
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise SettingsError(unwritten(path, error)) from None
