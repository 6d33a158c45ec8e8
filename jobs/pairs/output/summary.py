"""`pairs.json`: what was read, left out and corrected, and what came out, from the counts of all tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from jobs.pairs.corpus.items import popular_share
from jobs.pairs.labels.asked import SYNTHETIC
from jobs.pairs.labels.evidence import Positions
from jobs.pairs.output.readiness import readiness
from jobs.pairs.reading.sources import Input
from jobs.pairs.settings import PairsSettings
from jobs.pairs.signals import SIGNALS
from jobs.pairs.tasks import add_counts

Results = list[dict[str, Any]]
SHOWN_POSITIONS = 20


def summarise(
    key: str,
    inputs: Sequence[Input],
    settings: PairsSettings,
    stages: Mapping[str, Results],
    *,
    rejected: Mapping[str, Any],
    cuts: tuple[int, int],
    at: Positions,
    newest: int,
) -> dict[str, Any]:
    """The whole of it, JSON-able. Only sums: nothing of one user, and no event."""
    sessions, labels = stages["sessions"], stages["labels"]
    queries = add_counts(labels, "queries_by")
    real = {name: count for name, count in queries.items() if name.split(" ")[0] not in SYNTHETIC}
    synthetic_queries = sum(one.get("queries", 0) for one in stages["synthetic"])
    synthetic_labels = sum(one.get("labels", 0) for one in stages["synthetic"])
    shown_at, used_at = _sum(sessions, "shown_at"), _sum(sessions, "clicked_at")
    days = _days(sessions)
    ready = readiness(
        sum(one.get("train_relevant", 0) for one in labels),
        queries=sum(count for name, count in real.items() if name.endswith(" train")),
        dev=sum(count for name, count in real.items() if name.endswith(" dev")),
        negatives=add_counts(labels, "labels_by_score").get("0", 0),
        shown=sum(shown_at) > 0,
        timed=bool(days),
        positions=sum(used_at[1:]) > 0,
        users=any(one.get("clients") or one.get("users") for one in sessions),
        ctr=_quarters(days),
    )
    generated = {"items": sum(one["items"] for one in stages["generated"])} | add_counts(stages["generated"], "counts")
    synthetic_figures = {
        "queries": synthetic_queries,
        "of": sum(queries.values()) - sum(real.values()) + sum(add_counts(stages["generated"], "bins").values()),
        "labels": synthetic_labels,
        "generated": generated if stages["generated"] else None,
    }
    of_rejected = {"with_proposals": rejected.get("with_proposals", 0), "clusters": rejected["clusters"]}
    return {
        "key": key,
        "readiness": ready.as_json(),
        "logs": [_log(one) for one in inputs],
        **_read(stages),
        "signals": add_counts(sessions, "signals"),
        **_corrections(settings, stages, cuts, at),
        "newest_ms": newest,
        "drift": _quarters(days),
        "queries": real | ({"synthetic train": synthetic_queries} if synthetic_queries else {}),
        "labels": add_counts(labels, "labels_by_source") | ({"synthetic": synthetic_labels} if synthetic_labels else {}),
        "labels_by_score": add_counts(labels, "labels_by_score"),
        "relevant_per_query": dict(sorted(add_counts(labels, "relevant_per_query").items())),
        **{name: add_counts(labels, name) for name in ("conflicts", "left_out", "totals")},
        "synthetic": synthetic_figures,
        "rejected": {"queries": rejected["rejected"]} | of_rejected,
        "items": sum(one.get("items", 0) for one in stages["items"]),
        "rules": _rules(settings),
    }


def _corrections(settings: PairsSettings, stages: Mapping[str, Results], cuts: tuple[int, int], at: Positions) -> dict[str, Any]:
    """What was corrected, and where the log was cut."""
    shown_at, used_at = _sum(stages["sessions"], "shown_at"), _sum(stages["sessions"], "clicked_at")
    return {
        "positions": [
            {
                "position": position,
                "shown": shown_at[position],
                "used": used_at[position],
                "expected": round(float(at.expected[position]), 4),
            }
            for position in range(1, SHOWN_POSITIONS + 1)
            if shown_at and shown_at[position]
        ],
        "correction": settings.position_bias,
        "popularity": popular_share(add_counts(stages["popular"], "items_by_clicks")),
        "cuts": [f"{datetime.fromtimestamp(cut / 1000, UTC):%Y-%m-%d %H:%M} UTC" for cut in cuts] if cuts[0] else None,
    }


def _read(stages: Mapping[str, Results]) -> dict[str, Any]:
    """What was read and left out."""
    read, sessions, spelling = stages["read"], stages["sessions"], stages["spelling"][0]
    examples: dict[str, str] = {}
    for one in read:
        for reason, example in one.get("examples", {}).items():
            examples.setdefault(reason, example)
    return {
        "rows": sum(one["rows"] for one in read),
        "shapes": add_counts(read, "shapes"),
        "skipped": add_counts([*read, *sessions], "skipped"),
        "doubts": add_counts(read, "values"),
        "examples": examples,
        "queries_asked": sum(one.get("queries", 0) for one in sessions),
        "clients": sum(max(one.get("clients", 0), one.get("users", 0)) for one in sessions),
        "spelling": {"variants": spelling["variants"], "examples": spelling["examples"]},
    }


def _rules(settings: PairsSettings) -> dict[str, Any]:
    weights = settings.signals.weights
    return {
        name: {"grade": one.grade, "weight": weights.get(name, one.weight), "rule": one.rule} for name, one in SIGNALS.items()
    }


def _log(one: Input) -> dict[str, Any]:
    sizes = {piece.name: piece.size for piece in one.pieces}
    return {"url": one.url, "files": len(sizes), "bytes": sum(sizes.values()), "earlier": one.earlier is not None}


def _rounded(at: Positions, position: int) -> float:
    return round(float(at.expected[position]), 4)


def _sum(results: Results, name: str) -> list[int]:
    lists = [one[name] for one in results if name in one]
    return [sum(column) for column in zip(*lists, strict=True)] if lists else []


def _days(results: Results) -> dict[int, tuple[int, int]]:
    """Day -> (queries, those with a click)."""
    every: Counter[int] = Counter()
    used: Counter[int] = Counter()
    for one in results:
        for day, (queries, clicks) in one.get("days", {}).items():
            every[int(day)] += queries
            used[int(day)] += clicks
    return {day: (every[day], used[day]) for day in sorted(every)}


def _quarters(days: Mapping[int, tuple[int, int]]) -> list[float]:
    """The share of queries with a click in each quarter of the log; empty below eight days."""
    order = sorted(days)
    if len(order) < 8:
        return []
    cut = [order[0] + (order[-1] + 1 - order[0]) * part / 4 for part in range(5)]
    shares = []
    for start, stop in pairwise(cut):
        inside = [days[day] for day in order if start <= day < stop]
        shares.append(round(sum(used for _, used in inside) / max(1, sum(count for count, _ in inside)), 4))
    return shares
