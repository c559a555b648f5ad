"""Counts the faults that a campaign injected and those that were survived."""

import sys
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts the faults of one campaign and reports each one that was not survived at once."""

    name: str
    injected: int = 0
    survived: int = 0
    problems: list[str] = field(default_factory=list)

    def count(self, what: str, problem: str | None = None) -> None:
        """Counts one fault. what: describes it well enough to inject it again. problem: None if it was survived."""
        self.injected += 1
        if problem is None:
            self.survived += 1
            return
        self.problems.append(f"{what}: {problem}")
        print(f"{self.name} FAILED {what}: {problem}", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        return f"{self.name} {self.survived}/{self.injected}"
