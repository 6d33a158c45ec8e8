"""What the gradient looks at with random and with mined negatives, side by side, from two rounds' telemetry:

    python -m benchmarks.training.telemetry_picture [RANDOM/telemetry.jsonl MINED/telemetry.jsonl] [--out OUT.png]

Over the optimizer steps: loss, effective number of negatives, weight of the hardest one, share of dead negatives, which
kind of negative carries the gradient, and validation recall where there is any. Faint points are single steps, lines
their moving mean; both columns share their axes. Several rounds in one file (`cat`) follow each other. Pieces of a long
telemetry beside a file called telemetry.jsonl are read too. Without arguments: the telemetry of a generated run
(tests/support/synthetic_run.py). The picture needs the extra "bench" (matplotlib); without it only the figures are printed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared.command import emit, has_package, make_parser, note
from benchmarks.shared.inputs import temporary_folder
from benchmarks.training.arms import F64, Arm, arm_row, generated_telemetry, load

# Okabe and Ito's colours, which people who do not see red or green tell apart
RANDOM_COLOUR, MINED_COLOUR = "#0072B2", "#D55E00"
KINDS = {
    "hard": ("mined for the query", MINED_COLOUR),
    "random": ("drawn at random", RANDOM_COLOUR),
    "in_batch": ("other queries' items", "#BBBBBB"),
    "cross_rank": ("other ranks' items", "#E6C619"),
}
PANELS = {
    "loss": ("Loss", "nats per query"),
    "effective_negatives": ("Effective number of negatives", "exp of their entropy"),
    "hardest_weight": ("Weight of the hardest negative", "% of the weight of all"),
    "dead_negatives": ("Dead negatives", "% with a softmax weight below 0.0001"),
    "gradient": ("Which negatives carry the gradient", "%"),
    "recall": ("Validation recall", "%"),
}
PERCENT = {"hardest_weight", "dead_negatives", "recall"}


def draw(random: Arm, mined: Arm, out: str) -> None:
    """Draw both and save the picture; its format is that of the file's ending."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#EEEEEE",
            "axes.axisbelow": True,
            "legend.fontsize": 8.5,
            "legend.framealpha": 0.9,
        }
    )
    names = [name for name in PANELS if name != "recall" or len(random.recall) or len(mined.recall)]
    figure, grid = plt.subplots(len(names), 2, sharex=True, sharey="row", figsize=(11, 2.1 * len(names) + 1.1), squeeze=False)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.06, right=0.93, bottom=0.55 / height, top=1 - 1.75 / height, hspace=0.42, wspace=0.16)
    figure.text(0.06, 1 - 0.4 / height, "What the gradient looks at", fontsize=17, fontweight="bold")
    for column, (arm, title, colour) in enumerate(
        [(random, "Random negatives", RANDOM_COLOUR), (mined, "Mined negatives", MINED_COLOUR)]
    ):
        left = grid[0, column].get_position().x0
        figure.text(left, 1 - 0.85 / height, title, fontsize=13, fontweight="bold", color=colour)
        figure.text(left, 1 - 0.95 / height, summary(arm), fontsize=10, color="#444444", va="top", linespacing=1.35)
        for row, name in enumerate(names):
            axes = grid[row, column]
            panel(axes, arm, name, colour)
            _headings(axes, arm, name, first=row == 0)
        grid[-1, column].set_xlabel("optimizer step")
    figure.savefig(out, dpi=150)
    plt.close(figure)


def _headings(axes: Any, arm: Arm, name: str, *, first: bool) -> None:
    """Title and unit of a panel, and where rounds begin; only the first panel says what those lines are."""
    for start in arm.steps[1:][np.diff(arm.rounds) != 0]:
        axes.axvline(start, color="#444444", linewidth=0.8, linestyle=":")
        if first:
            axes.annotate(
                "next round",
                (start, 1),
                (3, -9),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=8,
                color="#666666",
            )
    axes.annotate(
        PANELS[name][0], (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontweight="bold", fontsize=10.5
    )
    axes.annotate(
        PANELS[name][1],
        (1, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color="#666666",
    )


def panel(axes: Any, arm: Arm, name: str, colour: str) -> None:
    """One panel of one arm."""
    if name == "gradient":
        _stack(axes, arm)
        return
    scale, unit = (100.0, " %") if name in PERCENT else (1.0, "")
    if name == "dead_negatives" and any(np.isfinite(arm.of(f"dead_{kind}")).any() for kind in KINDS):
        _dead_by_kind(axes, arm)
        return
    if name == "recall":
        axes.plot(arm.checked_at, scale * arm.recall, "o-", color=colour, linewidth=2, markersize=4)
        _label_end(axes, arm.checked_at, scale * arm.recall, colour, unit)
        return
    values, line = scale * arm.of(name), scale * arm.smooth(name)
    axes.plot(arm.steps, values, ".", color=colour, alpha=0.25, markersize=4, markeredgewidth=0)
    axes.plot(arm.steps, line, color=colour, linewidth=2)
    _label_end(axes, arm.steps, line, colour, unit)
    if name == "effective_negatives":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    else:
        axes.set_ylim(0, 105 if name == "dead_negatives" else None)


def summary(arm: Arm) -> str:
    """What the last tenth of the steps says, in two lines."""
    end = slice(-max(1, len(arm.steps) // 10), None)
    kind, words = ("hard", "mined for it") if _has(arm, "hard") else ("random", "drawn for it at random")
    dead, those = arm.of(f"dead_{kind}")[end], f"A query's negatives {words}"
    if not np.isfinite(dead).any():
        dead, those = arm.of("dead_negatives")[end], "A query's negatives"
    share = arm.of(f"gradient_share_{kind}")[end]
    return (
        f"{those}: {100 * np.nanmean(dead):.0f} % dead at the end.\n"
        f"Those {words} carry {100 * np.nanmean(share):.0f} % of the gradient."
    )


def _stack(axes: Any, arm: Arm) -> None:
    """Shares of the gradient by kind of negative, on top of each other."""
    kinds = [kind for kind in KINDS if _has(arm, kind)]
    axes.stackplot(
        arm.steps,
        [100 * np.nan_to_num(arm.smooth(f"gradient_share_{kind}")) for kind in kinds],
        colors=[KINDS[kind][1] for kind in kinds],
        labels=[KINDS[kind][0] for kind in kinds],
        linewidth=0,
    )
    axes.set_ylim(0, 100)
    axes.legend(loc="upper right", reverse=True)


def _dead_by_kind(axes: Any, arm: Arm) -> None:
    """A line per kind: the one that was picked for the query thick, with points and its last value."""
    own = "hard" if _has(arm, "hard") else "random"
    for kind in sorted(filter(lambda kind: _has(arm, kind), KINDS), key=lambda kind: kind == own):
        label, shade = KINDS[kind]
        # a round without a kind has none that are dead
        there = arm.of(f"gradient_share_{kind}") > 0
        values, line = (100 * np.where(there, series, np.nan) for series in (arm.of(f"dead_{kind}"), arm.smooth(f"dead_{kind}")))
        axes.plot(
            arm.steps,
            line,
            color=shade,
            linewidth=2.4 if kind == own else 1.6,
            linestyle="-" if kind == own else "--",
            label=label,
        )
        if kind == own:
            axes.plot(arm.steps, values, ".", color=shade, alpha=0.25, markersize=4, markeredgewidth=0)
            _label_end(axes, arm.steps, line, shade, " %")
    axes.set_ylim(0, 105)
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.52), ncols=3, fontsize=8, columnspacing=1.0, handlelength=1.6)


def _has(arm: Arm, kind: str) -> bool:
    """Whether there were negatives of a kind that had any part in the gradient."""
    return bool(np.nansum(arm.of(f"gradient_share_{kind}")) > 0)


def _label_end(axes: Any, steps: F64, values: F64, colour: str, unit: str) -> None:
    known = np.flatnonzero(np.isfinite(values))
    if len(known):
        axes.annotate(
            f"  {values[known[-1]]:.3g}{unit}",
            (steps[known[-1]], values[known[-1]]),
            color=colour,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )


def main() -> None:
    """Read two files, print their figures, draw one picture."""
    parser = make_parser(__doc__)
    parser.add_argument("random", nargs="?", help="telemetry of a round with random negatives")
    parser.add_argument("mined", nargs="?", help="telemetry of a round with mined negatives")
    parser.add_argument("--out", help="picture to write: .png, .svg or .pdf (default: in the folder for temporary files)")
    given = parser.parse_args()
    if (given.random is None) != (given.mined is None):
        parser.error("expected the telemetry of two rounds, found one; name both or none")
    with temporary_folder() as folder:
        paths = (given.random, given.mined) if given.random else generated_telemetry(folder)
        random, mined = map(load, paths)
    if has_package("matplotlib", "the picture"):
        out = given.out or str(Path(tempfile.gettempdir()) / "telemetry-picture.png")
        draw(random, mined, out)
        note(f"picture: {out}")
    emit([arm_row("random", random), arm_row("mined", mined)], as_json=given.json)


if __name__ == "__main__":
    main()
