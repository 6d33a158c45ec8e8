"""The tables of the page, as column names and rows of text."""

from __future__ import annotations

from typing import Any

from eval.metrics import metric_name
from jobs.report.answer import interval_text, p_text, state
from jobs.report.charts.chart import STATES, number, share
from jobs.report.charts.slices import slice_rows
from jobs.report.reranking import reranking_tables

Json = dict[str, Any]
Table = dict[str, Any]

METRICS = (
    "recall@1",
    "recall@3",
    "recall@5",
    "recall@10",
    "recall@100",
    "hit@1",
    "hit@3",
    "hit@5",
    "hit@10",
    "ndcg@10",
    "mrr@10",
    "map@100",
    "bad_top1",
)
RESULTS = {
    "coverage": "share of all items that appear among the first ten results of any query",
    "gini": "how unevenly items appear: 0 all equally often, 1 a single item",
    "top_share": "share of all result positions that the 1 % most shown items take",
    "similarity": "how similar the results of one query are (cosine)",
    "popularity": "mean popularity of the results, as a percentile",
    "relevant_popularity": "mean popularity of the relevant items, as a percentile",
}
UNITS = ("B", "kB", "MB", "GB", "TB")


def all_tables(report: Json) -> dict[str, Any]:
    """Every table by its name in the template; None or []: there is nothing to show."""
    last = report["minings"][-1] if report["minings"] else {}
    return {
        "models": _models(report),
        "metrics": _metrics(report),
        "test": _test(report),
        "general": _general(report),
        **reranking_tables(report["reranker"]),
        "minings": _minings(report),
        "warnings": last.get("warnings") or [],
        "most_used": _most_used(last),
        "slices": _table(
            (
                "column",
                "value",
                "queries",
                metric_name(report["primary"]),
                "gain and interval",
                "p, corrected",
                "against off the shelf",
            ),
            slice_rows(report),
        ),
        "results": _results(report),
        "leakage": _leakage(report),
        "stages": _stages(report),
        "changed": [
            [row["setting"], row["value"], "–" if row["default"] is None else row["default"]] for row in report["changed"]
        ],
        "settings": [[row["setting"], row["value"]] for row in report["settings"]],
        "fingerprints": [[name, value[:16]] for files in report["fingerprints"].values() for name, value in files.items()],
    }


def _table(columns: tuple[str, ...], rows: list[list[Any]]) -> Table | None:
    return {"columns": columns, "rows": rows} if rows else None


AGAINST = "against off the shelf"


def _models(report: Json) -> Table:
    """The primary figure of every model, and what it is against the off-the-shelf model and against the best one before."""
    primary, rows = report["primary"], []
    mined = [model["label"] for model in report["models"] if model["arm"] == "mined"]
    for model in report["models"]:
        gain, change = (model[against].get(primary) for against in ("against_baseline", "against_best"))
        p = (gain or {}).get("p_adjusted")
        # "the best before" of the model trained on random negatives only is the last mined round
        which = f", against {mined[-1]}" if model["arm"] == "random" and mined else ""
        rows.append(
            [
                named(report, model),
                f"{model['steps']:,}" if model["steps"] else "–",
                number(model["train_loss"]),
                number(model["metrics"].get(primary)),
                interval_text(gain) if gain else "–",
                p_text(p).removeprefix("= ") if p is not None else "–",
                STATES[state(gain, primary)][0] if gain else "–",
                STATES[state(change, primary)][0] + which if change else "–",
            ]
        )
    columns = ("model", "steps", "loss", metric_name(primary), "gain and interval", "p", AGAINST, "against the best before")
    return {"columns": columns, "rows": rows}


def named(report: Json, model: Json) -> str:
    """A model's name, and whether it is the kept one."""
    return f"{model['label']} (kept)" if model["name"] == report["best"] else str(model["label"])


def _metrics(report: Json) -> Table | None:
    """Every metric as a row, every model as a column, with what a perfect model gets."""
    best: Json = next((model["attainable"] for model in report["models"] if model["attainable"]), {})
    rows = [
        [metric_name(metric), *(number(model["metrics"].get(metric)) for model in report["models"]), number(best.get(metric))]
        for metric in METRICS
        if any(metric in model["metrics"] for model in report["models"])
    ]
    return _table(("figure", *(named(report, model) for model in report["models"]), "attainable"), rows)


CHOSEN = {"baseline": "off the shelf", "best": "kept", "random_arm": "random only"}
"""Models measured on the test split -> their names for a person."""


def _test(report: Json) -> Table | None:
    rows, primary = [], report["primary"]
    for name, row in (report["test"] or {}).items():
        interval = (row.get("against_baseline") or {}).get(primary)
        rows.append(
            [
                CHOSEN[name],
                *(number(row["metrics"].get(metric)) for metric in ("recall@3", "recall@10", "ndcg@10", "bad_top1")),
                interval_text(interval) if interval else "–",
                STATES[state(interval, primary)][0] if interval else "–",
            ]
        )
    return _table(("model", "Recall@3", "Recall@10", "NDCG@10", "bad top-1", f"{metric_name(primary)}: gain", AGAINST), rows)


def _general(report: Json) -> Table | None:
    primary = report["primary"]
    rows = []
    for row in report["general"]:
        interval = row["against_baseline"].get(primary)
        rows.append(
            [
                row["label"],
                *(number(row["metrics"].get(name)) for name in ("recall@3", "recall@10", "ndcg@10")),
                interval_text(interval) if interval else "–",
                STATES[state(interval, primary)][0] if interval else "–",
            ]
        )
    return _table(("model", "Recall@3", "Recall@10", "NDCG@10", f"{metric_name(primary)}: change", AGAINST), rows)


def _minings(report: Json) -> Table | None:
    rows = []
    for mining in report["minings"]:
        hardness = mining["hardness"] or {}
        rows.append(
            [
                mining["label"],
                share(mining["hit_rate"]),
                *(
                    f"{mining[name]:,}" if mining[name] is not None else "–"
                    for name in (
                        "candidates",
                        "survivors",
                        "chosen",
                        "judged",
                        "queries_short",
                        "suspected_false_negatives",
                        "above_positive",
                    )
                ),
                number(hardness.get("p50")),
            ]
        )
    return _table(
        (
            "mining",
            "hit rate",
            "candidates",
            "survivors",
            "chosen",
            "of them judged",
            "queries with too few",
            "suspected false negatives",
            "chosen above the positive",
            "hardness, median",
        ),
        rows,
    )


def _most_used(mining: Json) -> Table | None:
    most = ((mining.get("reuse") or {}).get("most_used") or [])[:10]
    queries = max(1, mining.get("queries") or 1)
    return _table(
        ("item", "title", "queries", "share"),
        [[row["item_id"], row["title"], f"{row['uses']:,}", share(row["uses"] / queries)] for row in most],
    )


def _results(report: Json) -> Table | None:
    before, after = report["results"]["before"] or {}, report["results"]["after"] or {}
    return _table(
        ("figure", "before", "after", "what it is"),
        [
            [name.replace("_", " "), number(before.get(name)), number(after.get(name)), text]
            for name, text in RESULTS.items()
            if before.get(name) is not None or after.get(name) is not None
        ],
    )


def _leakage(report: Json) -> Table | None:
    return _table(
        ("column", "with a relevant item", "with a random item", "pairs"),
        [
            [_agreement(column), share(row["positives"]), share(row["random"]), f"{row['pairs']:,}" if row.get("pairs") else "–"]
            for column, row in report["leakage"].items()
        ],
    )


def _agreement(column: str) -> str:
    """ "category", or "category, named in the query's text" for text:category; "text" is all tags of a column together."""
    head, _, tags = column.partition(":")
    if head != "text":
        return column
    return f"{tags}, named in the query's text" if tags else "any of these columns, named in the query's text"


def _stages(report: Json) -> Table | None:
    return _table(
        ("stage", "kind", "seconds", "work", "start-up and commits", "rows", "size", "read", "written", "requests", "memory"),
        [
            [
                row["name"],
                row["kind"],
                *(number(row[name], 1) for name in ("wall", "work", "overhead")),
                f"{row['rows']:,}",
                size(row["bytes"]),
                *(size(row[name]) for name in ("read_bytes", "written_bytes")),
                f"{row['requests']:,}",
                size(row["peak_bytes"]),
            ]
            for row in report["stages"]
        ],
    )


def size(count: float) -> str:
    """Bytes for a person: 6.9 MB."""
    unit = 0
    while count >= 1000 and unit < len(UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.1f} {UNITS[unit]}" if unit else f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Seconds for a person: 3 min 0 s."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def cost_sentence(report: Json) -> str:
    """What the whole run cost."""
    stages = report["stages"]
    if not stages:
        return "Nothing is committed yet."
    by_kind: dict[str, float] = {}
    for row in stages:
        by_kind[row["kind"]] = by_kind.get(row["kind"], 0.0) + row["wall"]
    most = sorted(by_kind.items(), key=lambda pair: -pair[1])[:3]
    return (
        f"{len(stages)} stages took {duration(sum(by_kind.values()))}, most of it "
        f"{', '.join(f'{kind} ({duration(seconds)})' for kind, seconds in most)}; "
        f"their output takes {size(sum(row['bytes'] for row in stages))}."
    )
