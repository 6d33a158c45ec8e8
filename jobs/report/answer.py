"""The first screen: did it get better, how sure is that, ship or not, what next. Only sentences, from figures.

A sentence says "better" or "worse" only if the difference is significant: by the corrected p value if there is one, else
if the interval excludes 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from eval.metrics import LOWER_IS_BETTER, metric_name
from eval.verdict import too_little
from jobs.stages.ingest.counts.notes import describe_equal_texts

Json = dict[str, Any]
State = Literal["better", "worse", "open"]

CARDS = ("recall@3", "ndcg@10", "hit@1", "bad_top1")
"""Figures of the first screen besides the primary one."""
MEANINGS = {
    "recall": "share of a query's relevant items found among the first {k} results",
    "hit": "share of queries with a relevant item among the first {k} results",
    "ndcg": "how high the relevant items are in the first {k} results; 1 is the ideal order",
    "mrr": "mean of 1 / position of the first relevant item; 0 beyond position {k}",
    "map": "mean precision at each relevant item in the first {k} results",
    "bad_top1": "share of queries whose first result is wrong; lower is better",
}

GAIN_IN_DOUBT = {"open": "the gain in {name} may be chance", "worse": "{name} got worse"}
"""What keeps a model that the gate lets pass from a plain yes."""


def meaning(metric: str) -> str:
    """A metric in plain words."""
    base, _, depth = metric.partition("@")
    if metric == "hit@1":
        return "share of queries whose first result is relevant"
    return MEANINGS.get(base, "").format(k=depth)


def state(interval: Mapping[str, Any] | None, metric: str) -> State:
    """Whether a difference is a gain, a loss, or not proven."""
    if not interval or interval.get("low") is None:
        return "open"
    certain = interval.get("significant")
    if certain is None:
        certain = interval["low"] > 0 or interval["high"] < 0
    if not certain or interval["mean"] == 0:
        return "open"
    return "better" if (interval["mean"] > 0) != (metric in LOWER_IS_BETTER) else "worse"


def points(value: float) -> str:
    """A difference of shares, in points: +3.4."""
    text = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def interval_text(interval: Mapping[str, Any]) -> str:
    """+3.4 points [+1.0, +5.7]."""
    return f"{points(interval['mean'])} points [{points(interval['low'])}, {points(interval['high'])}]"


def answer(report: Json) -> Json:
    """The first screen: state, headline, certainty, ship, ship_state, next, mining, cards, notes and whether p was corrected."""
    before, after = ends(report)
    primary = report["primary"]
    measured = _measured(report, before, after)
    interval = measured.against_baseline.get(primary) if measured else None
    change = state(interval, primary)
    result: Json = {
        "state": change,
        "headline": _headline(report, measured, before, change),
        "certainty": certainty(report, interval, f"{measured.split} queries" if measured else ""),
        "mining": mining_sentence(report),
        "cards": _cards(report, measured, before, after),
        "notes": _notes(report, measured, change),
    }
    result["corrected"] = any(card["p"] and card["state"] == "open" for card in result["cards"])
    return result | _ship(report, measured, change) | {"next": report["next"]}


def ends(report: Json) -> tuple[Json | None, Json | None]:
    """(the off-the-shelf model, the kept one); None: it is not measured."""
    by_name = {model["name"]: model for model in report["models"]}
    return by_name.get("baseline"), by_name.get(report["best"])


@dataclass(frozen=True)
class _Measured:
    """What the answer rests on: the test split if the run looked at it, else dev."""

    split: str
    before: Json
    """Metrics of the off-the-shelf model."""
    after: Json
    """Metrics of the kept model."""
    against_baseline: Json
    """Metric -> its change with the interval."""
    attainable: Json
    """Metric -> what a perfect model gets on these queries."""


def _measured(report: Json, before: Json | None, after: Json | None) -> _Measured | None:
    """None: there is no new model."""
    if before is None or after is None or after["name"] == "baseline":
        return None
    test = report.get("test") or {}
    if "best" in test and test["best"].get("against_baseline"):
        changes = {name: value for name, value in test["best"]["against_baseline"].items() if isinstance(value, dict)}
        best = test["best"].get("attainable") or {}
        return _Measured("test", test["baseline"]["metrics"], test["best"]["metrics"], changes, best)
    return _Measured(after["split"], before["metrics"], after["metrics"], after["against_baseline"], after["attainable"])


def _headline(report: Json, measured: _Measured | None, before: Json | None, change: State) -> str:
    name = metric_name(report["primary"])
    if before is None:
        return "Nothing is measured yet."
    if measured is None:
        if not [model for model in report["models"] if model["arm"] in ("warm-up", "mined")]:
            return "No round is measured yet: there is nothing to compare."
        return f"No: no round had a higher {name} than the off-the-shelf model, so that one is kept."
    old, new = measured.before.get(report["primary"]), measured.after.get(report["primary"])
    if old is None or new is None:
        return f"{name} was not measured for both models."
    figures = f"{name} {old:.3f} → {new:.3f}, {points(new - old)} points"
    return {
        "better": f"Yes, it got better: {figures}.",
        "worse": f"No, it got worse: {figures}.",
        "open": f"Not proven: {figures}, which may be chance.",
    }[change]


def certainty(report: Json, interval: Json | None, queries: str) -> str:
    """How sure the headline is: interval, p value, and number of the `queries`, such as "dev queries"; "": no interval."""
    if not interval:
        return ""
    text = (
        f"{report['confidence']:.0%} interval of the difference: {points(interval['low'])} to {points(interval['high'])} "
        f"points, over {interval['queries']:,} {queries}"
    )
    if interval.get("p_adjusted") is not None:
        text += f"; p {p_text(interval['p_adjusted'])} (paired permutation test)"
    doubt = too_little(interval["queries"])
    return text + (f". That is too few to rely on: {doubt}." if doubt else ".")


def p_text(p: float) -> str:
    """A p value: = 0.032, < 0.001."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def mining_sentence(report: Json) -> str:
    """What mined negatives gained over random ones in as many steps; "": there is nothing to say yet."""
    arm = next((model for model in report["models"] if model["arm"] == "random"), None)
    mined = [model for model in report["models"] if model["arm"] == "mined"]
    interval = (arm or {}).get("against_best", {}).get(report["primary"])
    if mined and not arm and report["finished"]:
        return "Not measured: no model was trained on random negatives only (rounds.compare_random = true adds one)."
    if not arm or not mined or not interval:
        return ""
    turned = {"mean": -interval["mean"], "low": -interval["high"], "high": -interval["low"]}
    word = {"better": "worse than", "worse": "better than", "open": "not distinguishable from"}[
        state(interval, report["primary"])
    ]
    if doubt := too_little(interval.get("queries", 0), steps=arm["steps"]):
        return f"Cannot tell: {doubt}."
    return (
        f"Mined negatives ({mined[-1]['label']}) were {word} random ones over {arm['steps']:,} steps: "
        f"{metric_name(report['primary'])} {interval_text(turned)}."
    )


def _cards(report: Json, measured: _Measured | None, before: Json | None, after: Json | None) -> list[Json]:
    """{"metric", "name", "meaning", "before", "after", "interval", "state"} of the figures that matter most."""
    shown = measured or _Measured("", (before or {}).get("metrics", {}), (after or {}).get("metrics", {}), {}, {})
    cards = []
    for metric in dict.fromkeys((report["primary"], *CARDS)):
        old, new = shown.before.get(metric), shown.after.get(metric)
        if old is None or new is None:
            continue
        interval = shown.against_baseline.get(metric)
        cards.append(
            {
                "metric": metric,
                "name": metric_name(metric),
                "meaning": meaning(metric),
                "before": old,
                "after": new,
                "interval": interval,
                "state": state(interval, metric) if interval else None,
                "attainable": shown.attainable.get(metric),
                "p": p_text(interval["p_adjusted"]) if interval and interval.get("p_adjusted") is not None else None,
            }
        )
    return cards


def _ship(report: Json, measured: _Measured | None, change: State) -> Json:
    """{"ship", "ship_state", maybe "ship_command"} from the gate; without one, as far as the figures allow."""
    if report.get("gate"):
        return _ship_by_gate(report, change)
    lost = [
        metric_name(name)
        for name, interval in (measured.against_baseline if measured else {}).items()
        if state(interval, name) == "worse"
    ]
    grave = [
        finding
        for finding in (report.get("diagnosis") or {}).get("findings", [])
        if finding["severity"] == "critical" and finding.get("arm") != "random"
    ]
    if not report["finished"]:
        return {"ship": "Not yet: the run is not finished.", "ship_state": "worse"}
    if change != "better":
        return {"ship": "Do not ship: there is no proven gain.", "ship_state": "worse"}
    if lost or grave:
        why = f"{', '.join(lost)} got worse" if lost else f"the diagnosis says {grave[0]['name'].replace('_', ' ')}"
        return {"ship": f"Decide with care: {why}.", "ship_state": "open"}
    return {
        "ship": "Nothing in these figures speaks against it. The gate also checks thresholds, slices and latency:",
        "ship_state": "open",
        "ship_command": f"hardmine gate {report['output']}",
    }


def _ship_by_gate(report: Json, change: State) -> Json:
    """A yes only where the gate says yes, has measured all that it is asked for, and the headline says better."""
    gate = report["gate"]
    failed, unsure = (
        [str(check["name"]) for check in gate["checks"] if check["outcome"] == outcome] for outcome in ("failed", "inconclusive")
    )
    if gate["passed"] is False:
        names = ", ".join(failed[:4]) + (" …" if len(failed) > 4 else "")
        return {
            "ship": f"Do not ship yet: {len(failed)} of {len(gate['checks'])} gate checks failed ({names})."
            if failed
            else "Do not ship yet: the gate had nothing to check.",
            "ship_state": "worse",
        }
    none_failed = f"no check of the gate failed ({_counts(gate)})"
    doubts = [] if change == "better" else [GAIN_IN_DOUBT[change].format(name=metric_name(report["primary"]))]
    others = [name for name in unsure if name != f"gain:{report['primary']}" or change == "better"]
    doubts += [f"{', '.join(others)} may be chance"] if others else []
    if gate.get("latency_pending"):
        doubts.append("query times are not measured yet")
    if not doubts:
        return {"ship": f"Ship it: {none_failed}.", "ship_state": "better"}
    command = {"ship_command": f"hardmine gate {report['output']}"} if gate.get("latency_pending") else {}
    head = "Not decided yet" if change == "better" and not others else "Your decision"
    return {
        "ship": f"{head}: {none_failed}, but {'; and '.join(doubts)}{':' if command else '.'}",
        "ship_state": "open",
    } | command


def _counts(gate: Json) -> str:
    outcomes = [check["outcome"] for check in gate["checks"]]
    return ", ".join(f"{outcomes.count(one)} {one}" for one in ("passed", "inconclusive", "not checked") if one in outcomes)


def _notes(report: Json, measured: _Measured | None, change: State) -> list[str]:
    """What a careful reader should know."""
    notes = []
    if not report["finished"]:
        notes.append("The run is not finished: these are the figures so far.")
    after = ends(report)[1]
    if measured and measured.split == "dev" and change == "better" and len(report["models"]) > 2:
        notes.append(
            "The kept round was chosen on these queries, so expect slightly less on new ones. "
            'evaluation.split = "test" measures it once on queries that decided nothing.'
        )
    if after and after.get("without_positive"):
        notes.append(f"{after['without_positive']:,} of {after['queries']:,} queries have no relevant item and do not count.")
    return notes + _equal_texts(report, after)


def _equal_texts(report: Json, after: Json | None) -> list[str]:
    """What equal texts in the data did to the figures."""
    equal_texts = (report.get("data") or {}).get("equal_texts")
    notes = [line.lstrip("! ") for line in describe_equal_texts(equal_texts)] if equal_texts else []
    notes = [f"{line[0].upper()}{line[1:]}." for line in notes]
    measured = (after or {}).get("equal_texts") or {}
    if count := measured.get("queries_with_copies"):
        notes.append(f"Among the hits of {count:,} queries were unlabelled copies of relevant items, which count as these.")
    if count := measured.get("first_hits_of_own_text"):
        notes.append(
            f"The first hit of {count:,} queries is an item with the query's own text that is not labelled relevant: "
            f"label it, or take it out of the corpus."
        )
    return notes
