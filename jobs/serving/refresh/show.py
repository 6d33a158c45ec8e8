"""What `hardmine refresh` prints at its end."""

from __future__ import annotations

from typing import Any

from rich.console import Console

TITLES = {"nothing": "Nothing to do", "items": "The model stays, its items are new", "train": "A new model"}


def show_refresh(console: Console, entry: dict[str, Any], home: str) -> None:
    """Print the decision, its reason, and what to do with it."""
    lines = [f"{TITLES[entry['action']]}: {entry['reason']}."]
    changes = entry.get("changes")
    if changes:
        lines.append(
            f"  items: {changes['items_new']:,} new, {changes['items_changed']:,} changed, {changes['items_gone']:,} gone, "
            f"{changes['items_same']:,} the same"
        )
        if changes["labels_new"] is not None:
            drift = "" if changes["drift"] is None else f", whose best hit is {changes['drift']:+.3f} farther than a known one's"
            lines.append(
                f"  labels: {changes['labels_new']:,} new, {changes['labels_gone']:,} gone of {changes['labels']:,}; queries: "
                f"{changes['queries_new']:,} new of {changes['queries']:,}{drift}"
            )
    if entry.get("export"):
        lines.append(f"  export: {entry['export']}, {entry['embedded']:,} items embedded")
    if entry.get("saved_s"):
        lines.append(f"  not trained: about {entry['saved_s']:,.0f} s saved")
    lines.append(f"  live in {home}: {entry['live']}")
    if entry.get("export") and entry["export"] != entry["live"]:
        lines += [
            f"  compare: hardmine compare-live LOG {home} {home}/{entry['export']}",
            f"  let it in: hardmine live {home} {entry['export']}",
        ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
