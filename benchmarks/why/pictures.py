"""Draws the pictures of docs/why-hard-negatives.md: SVG on a white card, which reads on a dark page too, in Okabe and Ito's
colours (told apart without red or green) and, where an order matters, in cividis. Needs the extra "bench" (matplotlib).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.why.canvas import figure, save

F64 = npt.NDArray[np.float64]
Line = dict[str, Any]

RANDOM, MINED, THIRD, FOURTH, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A8A8A"
GENRES = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#B8A800", "#8A8A8A", "#5D3A9B"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "<", ">"]
POINTS = 70
"""Of a drawn line: more would only make the file larger."""


class Circle(NamedTuple):
    """One panel of two-dimensional embeddings."""

    title: str
    items: F64
    """[N, 2]"""
    queries: F64
    """[Q, 2]"""
    item_of_query: npt.NDArray[np.int64]
    genre: npt.NDArray[np.int64]
    """[N]"""
    hit: float
    """Share of the queries whose nearest item is the right one."""
    genre_hit: float


def draw_circles(panels: Sequence[Circle], paths: Sequence[Path]) -> None:
    """Items on the circle, held-out queries outside it, each tied to the item that answers it."""
    drawn, axes = figure(1, len(panels), (4.1 * len(panels), 4.4))
    for place, panel in zip(axes[0], panels, strict=True):
        place.set(aspect="equal", xlim=(-1.36, 1.36), ylim=(-1.36, 1.36))
        place.axis("off")
        turn = np.linspace(0, 2 * np.pi, 200)
        place.plot(np.cos(turn), np.sin(turn), color="#DDDDDD", linewidth=1, zorder=0)
        for genre in np.unique(panel.genre):
            colour, marker = GENRES[genre % len(GENRES)], MARKERS[genre % len(MARKERS)]
            own = panel.items[panel.genre == genre]
            place.scatter(own[:, 0], own[:, 1], s=42, color=colour, marker=marker, linewidths=0, zorder=3)
            asked = np.flatnonzero(panel.genre[panel.item_of_query] == genre)
            outer, inner = 1.3 * panel.queries[asked], 1.04 * panel.items[panel.item_of_query[asked]]
            ties = np.full((3 * len(asked), 2), np.nan)
            ties[0::3], ties[1::3] = outer, inner
            place.plot(ties[:, 0], ties[:, 1], color=colour, linewidth=0.6, alpha=0.55, zorder=1)
            place.scatter(outer[:, 0], outer[:, 1], s=6, color=colour, linewidths=0, zorder=2)
        place.set_title(panel.title, loc="center", pad=4)
        said = f"right item first\n{panel.hit:.0%}\n\nright genre first\n{panel.genre_hit:.0%}"
        place.text(0, 0, said, ha="center", va="center", fontsize=11, linespacing=1.35)
    save(drawn, paths)


def draw_temperatures(weights: Mapping[float, F64], trained_at: float, paths: Sequence[Path]) -> None:
    """Weight of the negative at each position, and of all up to it, for several temperatures."""
    import matplotlib

    drawn, axes = figure(1, 2, (11, 4.6))
    shades = matplotlib.colormaps["cividis"](np.linspace(0.0, 0.86, len(weights)))
    left, right = axes[0]
    ends: list[tuple[float, float, str, Any]] = []
    for shade, (temperature, weight_R) in zip(shades, weights.items(), strict=True):
        position = np.unique(np.geomspace(1, len(weight_R), POINTS).astype(int))
        wide = 3.2 if temperature == trained_at else 1.8
        left.plot(position, weight_R[position - 1], color=shade, linewidth=wide)
        total = np.cumsum(weight_R)[position - 1]
        right.plot(position, 100 * total, color=shade, linewidth=wide)
        half = int(np.searchsorted(np.cumsum(weight_R), 0.5)) + 1
        right.plot([half], [100 * weight_R[:half].sum()], "o", color=shade, markersize=6, zorder=4)
        ends.append((1.0, float(weight_R[0]), f"τ = {temperature:g} ", shade))
    left.set(
        xscale="log",
        yscale="log",
        ylim=(1e-8, 1),
        xlabel="position of the negative, 1 = hardest",
        title="Share of the push on one negative",
    )
    left.set_xlim(0.17, None)
    label_ends(left, ends, side="left")
    left.axhline(1 / len(next(iter(weights.values()))), color=GREY, linestyle=":", linewidth=1.2)
    left.annotate(
        "all alike", (30, 1 / len(next(iter(weights.values())))), (0, 3), textcoords="offset points", color="#666666", fontsize=9
    )
    right.set(xscale="log", ylim=(0, 102), xlabel="this many of the hardest", title="Share of the push they carry together (%)")
    right.axhline(50, color=GREY, linestyle=":", linewidth=1.2)
    right.annotate("half", (1, 50), (2, 3), textcoords="offset points", color="#666666", fontsize=9)
    for axis in (left.xaxis, right.xaxis):
        axis.set_major_formatter("{x:,g}")
    save(drawn, paths)


PANELS = {
    "loss": "Training loss (nats)",
    "recall@3": "Recall@3, held-out queries (%)",
    "effective_negatives": "Effective number of negatives",
    "dead_negatives": "Dead among the query's own (%)",
    "positive_probability": "Probability of the positive",
    "gradient_norm": "Norm of the gradient",
}


def draw_arms(warmup: Sequence[Line], trained: Mapping[str, Sequence[Line]], paths: Sequence[Path]) -> None:
    """Trainings from the same start, side by side, with the warm-up that they share before them."""
    drawn, axes = figure(2, 3, (11.5, 6.2), sharex=True)
    begin = max(line["step"] for line in warmup)
    arms = [("warm-up", "#6E6E6E", warmup, 0)]
    arms += [(name, colour, lines, begin) for (name, lines), colour in zip(trained.items(), (RANDOM, THIRD, MINED), strict=True)]
    for place, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
        place.set_title(title)
        ends = []
        for label, colour, lines, offset in arms:
            steps, values = series(lines, name, own="dead_hard" if "mined" in label else "dead_random")
            if name == "recall@3" and offset:  # a line begins where the warm-up ended
                steps, values = np.insert(steps, 0, 0.0), np.insert(values, 0, series(warmup, name)[1][-1])
            place.plot(steps + offset, values, color=colour, linewidth=2.2, linestyle="--" if label == "warm-up" else "-")
            if label != "warm-up":
                ends.append((float(steps[-1] + offset), float(values[-1]), f" {label}", colour))
        place.axvline(begin, color=GREY, linewidth=0.9, linestyle=":")
        place.set_xlim(0, None)
        if name == "loss":
            place.set_yscale("log")
        elif name == "dead_negatives":
            place.set_ylim(0, 100)
        elif name != "recall@3":
            place.set_ylim(0, None)
        label_ends(place, ends, side="right")
    axes[0, 1].annotate(
        "same start",
        (begin, 0.0),
        (4, 14),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=9,
        color="#555555",
        va="top",
    )
    for place in axes[1]:
        place.set_xlabel("optimizer step")
    save(drawn, paths)


def series(lines: Sequence[Line], name: str, *, own: str = "dead_negatives") -> tuple[F64, F64]:
    """(steps, values) of a figure to draw: smoothed over a fifteenth of the steps; as a percentage where it is a share."""
    if name == "recall@3":
        found = [line for line in lines if "event" in line]
        return np.array([line["step"] for line in found], float), np.array([100 * line[name] for line in found])
    steps = [line for line in lines if "event" not in line]
    key, scale = (own, 100.0) if name == "dead_negatives" else (name, 1.0)
    values = np.array([scale * line[key] for line in steps])
    half = max(1, len(values) // 30)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.unique(np.linspace(0, len(values) - 1, POINTS).astype(int))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return np.array([steps[i]["step"] for i in at], float), (total[high] - total[low]) / (high - low)


class FalseArm(NamedTuple):
    """One arm of the picture about false negatives."""

    name: str
    colour: str
    quality: Sequence[tuple[int, float]]
    """(step, NDCG@10)."""
    share_false: float
    """Share of the gradient that falls on unlabelled right answers."""
    among_mined: float
    """Share of the mined negatives that are right answers."""


def draw_false_negatives(arms: Sequence[FalseArm], paths: Sequence[Path]) -> None:
    """NDCG by all that is relevant in truth, and what share of the push went to right answers."""
    drawn, axes = figure(1, 2, (11, 4.4), width_ratios=[1.25, 1])
    left, right = axes[0]
    for arm in arms:
        steps, values = zip(*arm.quality, strict=True)
        left.plot(steps, 100 * np.array(values), color=arm.colour, linewidth=2.4)
    left.set(xlabel="optimizer step after the warm-up", title="NDCG@10 by all right answers (%)")
    label_ends(
        left, [(float(arm.quality[-1][0]), 100 * arm.quality[-1][1], f" {arm.name}", arm.colour) for arm in arms], side="right"
    )
    places = np.arange(len(arms))[::-1]
    right.barh(places, [100 * arm.share_false for arm in arms], color=[arm.colour for arm in arms], height=0.6)
    for place, arm in zip(places, arms, strict=True):
        right.annotate(f"{arm.share_false:.0%}", (100 * arm.share_false, place), (4, 0), textcoords="offset points", va="center")
    right.set_yticks(places, [arm.name for arm in arms])
    right.set(xlim=(0, 120 * max(arm.share_false for arm in arms)), title="Push that hits right answers (%)")
    right.grid(axis="y", visible=False)
    save(drawn, paths)


class Draws(NamedTuple):
    """What a number of random negatives brings, by one model's scores."""

    number: int
    formula: float
    """Expected position of the hardest."""
    measured: float
    mass: float
    """1 - p of the positive: what is left to learn from them."""


def draw_batch_sizes(draws: Sequence[Draws], mined_mass: float, mined: int, num_items: int, paths: Sequence[Path]) -> None:
    """How hard the hardest of n random negatives is, and what n random negatives leave to learn."""
    drawn, axes = figure(1, 2, (11, 4.4))
    left, right = axes[0]
    number = np.array([row.number for row in draws], float)
    left.plot(number, [row.formula for row in draws], color=GREY, linewidth=2)
    left.plot(number, [row.measured for row in draws], "o", color=RANDOM, markersize=7)
    left.axhspan(1, 32, color=MINED, alpha=0.14, linewidth=0)
    left.annotate("what mining takes: positions 1 to 32", (number[0], 32), (0, -14), textcoords="offset points", color="#A04400")
    left.annotate("(N + 1) / (n + 1)", (number[2], draws[2].formula), (14, 6), textcoords="offset points", color="#555555")
    left.set(
        xscale="log",
        yscale="log",
        ylim=(1, num_items),
        xlabel="random negatives per query, n",
        title=f"Position of the hardest, among {num_items:,}",
    )
    mass = 100 * np.array([row.mass for row in draws])
    right.plot(number, mass, "o-", color=RANDOM, linewidth=2, markersize=6)
    right.axhline(100 * mined_mass, color=MINED, linewidth=2)
    right.annotate(f"{mined} mined ones", (number[0], 100 * mined_mass), (0, -15), textcoords="offset points", color="#A04400")
    right.annotate("n random ones", (number[-4], mass[-4]), (-8, 10), textcoords="offset points", color=RANDOM, ha="right")
    right.set(xscale="log", ylim=(0, None), xlabel="random negatives per query, n", title="What is left to learn: 1 − p⁺ (%)")
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.set_major_formatter("{x:,g}")
    save(drawn, paths)


def label_ends(place: Any, ends: Sequence[tuple[float, float, str, Any]], *, side: str) -> None:
    """Write (x, y, text, colour) beside the ends of lines, apart from each other."""
    figure_of = place.get_figure()
    figure_of.canvas.draw()
    gap = 13.0 * figure_of.dpi / 72
    box = place.get_window_extent()
    at = [float(np.clip(place.transData.transform((x, y))[1], box.y0 + gap / 2, box.y1 - gap)) for x, y, _, _ in ends]
    order = np.argsort([y for _, y, _, _ in ends])  # not by place: several may be clipped to one
    heights = spread([at[i] for i in order], gap)
    for index, height in zip(order, heights, strict=True):
        x, y, text, colour = ends[index]
        shift = (height - place.transData.transform((x, y))[1]) * 72 / figure_of.dpi
        place.annotate(
            text,
            (x, y),
            (0, shift),
            textcoords="offset points",
            color=colour,
            fontsize=10,
            fontweight="bold",
            va="center",
            ha="right" if side == "left" else "left",
            annotation_clip=False,
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending numbers moved as little as it takes for neighbours to be `gap` apart."""
    groups: list[list[float]] = []  # [sum of (height - own offset), count]
    for height in heights:
        groups.append([height, 1])
        while len(groups) > 1 and _start(groups[-1], gap) < _start(groups[-2], gap) + groups[-2][1] * gap:
            total, count = groups.pop()
            groups[-1] = [groups[-1][0] + total, groups[-1][1] + count]
    return [_start(group, gap) + i * gap for group in groups for i in range(int(group[1]))]


def _start(group: Sequence[float], gap: float) -> float:
    total, count = group
    return total / count - (count - 1) * gap / 2
