"""How far a stage is: what its workers say that they have done, how fast, and how long the rest takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Message:
    """What a worker has done."""

    text: str
    """For a person; "": nothing to show."""
    done: float = 0.0
    """Work that this sender has done in its stage."""
    of: float = 0.0
    """Work of the whole stage, by all senders; 0: this sender does not know."""

    def after(self, before: Message | None) -> Message:
        """This message; without counts of its own it has those of the one before."""
        return self if before is None or self.done or self.of else replace(before, text=self.text)


class Pace:
    """What a stage has done of its work, and how fast. Pure: the caller has the clock."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._known: dict[str, Message] = {}
        self._first: tuple[float, float] | None = None
        self._last: tuple[float, float] | None = None
        """(time, work done) when something was done for the first time, and lately."""

    def hear(self, messages: Mapping[str, Message], now: float) -> None:
        """Take what senders have posted."""
        for sender, message in messages.items():
            self._known[sender] = message.after(self._known.get(sender))
        done = sum(message.done for message in self._known.values())
        if done and (self._last is None or done != self._last[1]):
            self._last = now, done
            self._first = self._first or self._last

    @property
    def text(self) -> str:
        """The messages for a person."""
        return " · ".join(self._known[name].text for name in sorted(self._known) if self._known[name].text)

    def seconds(self, now: float) -> float:
        """Since the stage began."""
        return now - self._started

    def left_s(self, now: float) -> float | None:
        """Seconds until the work is done at the pace so far, without start-up; None: not known."""
        of = max((message.of for message in self._known.values()), default=0.0)
        if not of or self._first is None or self._last is None or self._last[1] <= self._first[1]:
            return None
        rate = (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])
        return max(0.0, (of - self._last[1]) / rate - (now - self._last[0]))


def duration(seconds: float) -> str:
    """For a person, and no finer than an estimate is: "40 s", "12 min", "3.4 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
