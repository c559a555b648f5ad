"""What a diagnosis is made of."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["alarm", "advice"]


@dataclass(frozen=True)
class Finding:
    """Something a history shows.

    kind: which of the findings. level: "alarm" when the run is spoiled without a change. step: where it shows.
    evidence: one sentence with the figures. advice: one thing to try.
    """

    kind: str
    level: Level
    step: int
    evidence: str
    advice: str
