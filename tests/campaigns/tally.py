"""What a campaign injected, and what survived it."""

import sys
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts the faults of one campaign, and tells each that did not end as it should at once."""

    name: str
    injected: int = 0
    survived: int = 0
    problems: list[str] = field(default_factory=list)

    def count(self, what: str, problem: str | None = None) -> None:
        """Counts one fault. what: names it, so that it can be injected again. problem: None when it was survived."""
        self.injected += 1
        if problem is None:
            self.survived += 1
            return
        self.problems.append(f"{what}: {problem}")
        print(f"{self.name} FAILED {what}: {problem}", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        return f"{self.name} {self.survived}/{self.injected}"
