"""What a log says of clicks: which item was shown where for which query, and how often it was clicked there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cluster.tables.tables import I64
from eval.live.click_model import Showings, fit_click_model, forecast_clicks
from jobs.serving.live.log_files import ids_of
from jobs.serving.live.outcome import CLICKS, clicked_item
from jobs.serving.live.queries import LoggedQuery, text_of_row

SHOWN_IDS = ("query_response_hit_ids", "object_ids", "shown")
FEWEST_CLICKS = 100
"""With fewer, the log says nothing of clicks."""
LEAST_KNOWN = 0.5
"""Share of B's results that the log must have shown, for a forecast to say more than what is assumed of the others."""


@dataclass(frozen=True)
class ClickLog:
    """Showings, and the code of each pair."""

    showings: Showings
    codes: Mapping[tuple[str, str], int]
    """(query text, item id) -> code."""

    def pairs(self, queries: Sequence[LoggedQuery], ids: Sequence[Sequence[str]], hits: int) -> I64:
        """[Q, K] codes of what each query is shown; -1: never shown in the log; -2: the list has ended."""
        table = np.full((len(queries), hits), -2, np.int64)
        for row, query, names in zip(table, queries, ids, strict=True):
            row[: len(names)] = [self.codes.get((query.text, name), -1) for name in names]
        return table


@dataclass
class ClickReader:
    """The showings of a log of UBI queries with `query_response_hit_ids` and their clicks, row by row."""

    shown: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    """query_id -> (query text, ids)."""
    clicked: dict[str, set[str]] = field(default_factory=dict)

    def add(self, place: str, row: Mapping[str, Any]) -> None:
        """Take in one row; `place` is where it stands."""
        text = text_of_row(row)
        if row.get("action_name") in CLICKS:
            self.clicked.setdefault(str(row.get("query_id")), set()).add(clicked_item(row))
        elif text:
            items = next((ids_of(row[name]) for name in SHOWN_IDS if row.get(name)), [])
            self.shown[str(row.get("query_id") or place)] = (text, items)

    def log(self) -> ClickLog | None:
        """What was read; None: no clicks, or hardly any.

        A query's clicks count once for each item, wherever in the log they stand. A click on what was not shown is left out.
        """
        codes: dict[tuple[str, str], int] = {}
        counts: Counter[tuple[int, int]] = Counter()
        hits: Counter[tuple[int, int]] = Counter()
        for query_id, (text, items) in self.shown.items():
            wanted = self.clicked.get(query_id, set())
            for position, item in enumerate(dict.fromkeys(items)):
                showing = codes.setdefault((text, item), len(codes)), position
                counts[showing] += 1
                hits[showing] += item in wanted
        if sum(hits.values()) < FEWEST_CLICKS:
            return None
        rows = np.array(list(counts), np.int64)
        columns = (np.array([counter[row] for row in counts], np.int64) for counter in (counts, hits))
        return ClickLog(Showings(rows[:, 0], rows[:, 1], *columns), codes)


def click_forecast(
    log: ClickLog, queries: Sequence[LoggedQuery], ids_a: Sequence[Sequence[str]], ids_b: Sequence[Sequence[str]], hits: int
) -> dict[str, Any]:
    """Expected clicks per query of two exports, and what is assumed."""
    model = fit_click_model(log.showings)
    weight = np.array([query.count for query in queries], np.float64)
    forecast = forecast_clicks(model, log.pairs(queries, ids_a, hits), log.pairs(queries, ids_b, hits), weight)
    assumes = [
        "whether a result is looked at depends on its position alone, and whether it is then clicked on query and item alone",
        f"a result that the log never showed for its query is clicked as often as the mean result, {model.mean:.1%} of looks",
    ]
    if not model.fitted:
        assumes.append(
            "a position is looked at 1 / position as often as the first: no item was shown at several positions for one query, "
            "so the log does not tell; showing two neighbours in random order now and then would"
        )
    says = "enough" if forecast.known_b >= LEAST_KNOWN else "little"
    figures = {name: round(value, 6) for name, value in asdict(forecast).items()}
    return figures | {
        "clicks": int(log.showings.clicked.sum()),
        "showings": int(log.showings.shown.sum()),
        "positions_fitted": model.fitted,
        "says": says,
        "assumes": assumes,
    }
