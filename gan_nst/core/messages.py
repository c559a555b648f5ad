"""How what is logged reaches the terminal of the command line."""

import logging
import os
import sys
from typing import TextIO

from gan_nst.core.errors import one_line


class _Output(logging.StreamHandler[TextIO]):
    """Standard output, until its reader has gone (`| head`); the work goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            logging.getLogger("gan_nst").removeHandler(self)
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it when it exits)
        else:
            super().handleError(record)


class _OneLine(logging.Formatter):
    """One message, one line, whatever the file names in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return one_line(super().formatMessage(record))


class _Lines(logging.Formatter):
    """Messages of one line or of a table's lines, with nothing that would move the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return "\n".join(map(one_line, super().formatMessage(record).split("\n")))


def print_logs(quiet: bool) -> None:
    """Progress goes to standard output as it is; warnings and errors to standard error, named."""
    out, err = _Output(sys.stdout), logging.StreamHandler(sys.stderr)
    out.addFilter(lambda record: record.levelno < logging.WARNING)
    out.setFormatter(_Lines())
    err.setLevel(logging.WARNING)
    err.setFormatter(_OneLine("%(levelname)s: %(message)s"))
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.ERROR, "error")
    root = logging.getLogger("gan_nst")
    root.handlers = [out, err]
    root.setLevel(logging.WARNING if quiet else logging.INFO)
