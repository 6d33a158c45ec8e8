"""The style and the files of the pictures: SVG on a white card, the same bytes for the same figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

INK = "#222222"


def figure(rows: int, columns: int, size: tuple[float, float], **more: Any) -> tuple[Any, Any]:
    """An empty figure in the page's style."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 10.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#E8E8E8",
            "axes.axisbelow": True,
            "axes.edgecolor": "#999999",
            "text.color": INK,
            "axes.labelcolor": INK,
            "xtick.color": "#555555",
            "ytick.color": "#555555",
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "svg.fonttype": "path",
            "svg.hashsalt": "hardmine",
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
        }
    )
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **more)


def save(drawn: Any, paths: Sequence[Path]) -> None:
    """In each format; an SVG has no date, so the same figures give the same bytes."""
    import matplotlib.pyplot as plt

    for path in paths:
        drawn.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
        if path.suffix == ".svg":
            path.write_text(compact(path.read_text()))
    plt.close(drawn)


def compact(svg: str) -> str:
    """The same picture with paths to a hundredth of a point, in two thirds of the bytes."""
    return re.sub(r' d="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), svg)
