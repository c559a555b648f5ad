"""The command line, run in this process."""

import logging

import pytest

from gan_nst.cli import main


@pytest.fixture(autouse=True)
def _no_handlers_stay():
    """The command line's handlers write to the streams of their own test, which are closed after it."""
    yield
    logging.getLogger("gan_nst").handlers.clear()


@pytest.fixture
def gan_nst(capfd, in_project):
    """Runs the command line in this process: exit code, standard output, standard error."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run
