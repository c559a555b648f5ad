"""What a run's curves say while it is trained: alarms are told when they show, not at the end."""

import logging
from contextlib import suppress
from pathlib import Path

from gan_nst.core.errors import DataError
from gan_nst.diagnosis.curves import read_run
from gan_nst.diagnosis.rules import diagnose

log = logging.getLogger(__name__)

# All of a run's metrics are read each time; looked at whenever there are so many times as many, they cost next to
# nothing in all.
_GROWTH = 1.1


class Watch:
    """Warns of each kind of alarm once a session, at the first look that finds it."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._next = 0.0
        self._told: set[str] = set()

    def __call__(self, step: int) -> None:
        """Looks at what was logged before a step, unless that is little more than the last time."""
        if step < self._next:
            return
        self._next = _GROWTH * step
        with suppress(DataError):  # nothing is logged yet, or it could not be, which was told
            for finding in diagnose(read_run(self._run)):
                if finding.level == "alarm" and finding.kind not in self._told:
                    self._told.add(finding.kind)
                    log.warning(
                        f"{finding.kind}, step {finding.step}: {finding.evidence} Try: {finding.advice}"
                    )
