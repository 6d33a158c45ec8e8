"""What was left out while a piece was read, with reasons and an example of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Notes:
    """What was left out while a piece was read."""

    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Reason -> rows."""
    values: Counter[str] = field(default_factory=Counter)
    """Reason -> values that are left out or read with a doubt, while their row is used."""
    unreadable: int = 0
    """Lines that are no JSON object."""
    examples: dict[str, str] = field(default_factory=dict)
    """Reason -> the first row that was left out for it."""

    def skip(self, reason: str, count: int, example: str = "") -> None:
        """Count rows that are not used."""
        if count:
            self.skipped[reason] += count
            if example:
                self.examples.setdefault(reason, example)
