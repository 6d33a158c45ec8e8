"""What `hardmine export` and `hardmine live` print for a person."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from jobs.serving.export.ship import Exported


def show_export(console: Console, exported: Exported) -> None:
    """Print where it lies, what it measured, and what to do with it."""
    stamp, choice, home = exported.stamp, exported.choice, exported.path.rpartition("/")[0]
    size = sum(int(info["bytes"]) for info in stamp.files.values()) / 1e6
    lines = [
        f"{exported.name}{': was there already' if exported.kept else ''}",
        f"  {stamp.items:,} items, {stamp.dimension} dimensions, {size:,.1f} MB and the model, in {exported.path}",
        f"  index: {choice.kind}{_setting(choice.kind, choice.setting)}, recall@10 {choice.recall:.3f} against exact search "
        f"({choice.queries:,} queries), {choice.p50_ms:.2f} ms a query (95th percentile {choice.p95_ms:.2f})",
        *(f"  not {one['kind']}: recall@10 {one['recall']:.3f}, 95th percentile {one['p95_ms']:.2f} ms" for one in choice.tried),
    ]
    small = exported.quantized
    if small is not None:
        lines.append(
            f"  queries in 8 bits find {small.recall:.1%} of float32's ten nearest ({small.queries} queries); encoding one takes "
            f"{small.p50_ms:.1f} ms, in float32 {small.float32_ms:.1f}; {small.megabytes:,.1f} MB"
        )
    if exported.live == exported.name:
        lines.append(f'  it is live in {home}; try `hardmine search {home} "a query"`')
    else:
        lines.append(f"  live in {home} is still {exported.live}; `hardmine live {home} {exported.name}` lets this one be")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _setting(kind: str, setting: int) -> str:
    name = {"hnsw": "efSearch", "ivf": "nprobe", "ivfpq": "nprobe"}.get(kind)
    return f" ({name} {setting})" if name else ""


def show_live(console: Console, value: dict[str, Any]) -> None:
    """Print the exports of a folder, the live one marked."""
    for name in value["exports"]:
        mark = "live" if name == value["live"] else "was live" if name == value["before"] else ""
        console.print(f"{name}  {mark}".rstrip(), highlight=False, soft_wrap=True, markup=False)
