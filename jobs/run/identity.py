"""Which data and which model a run's folder belongs to: another run is refused there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.commits import Ledger
from cluster.errors import ConfigError
from cluster.records import read_record
from cluster.storage import Store
from jobs.config.config import Config
from jobs.record.stages import Kind, Stage
from jobs.stages.ingest.fingerprints import BESIDE

IDENTITY = "identity.json"


def refuse_other_run(config: Config, store: Store, prints: Mapping[str, Any]) -> None:
    """Raises ConfigError: the folder holds stages on other data or of another base model.

    Only what is committed counts: data that was refused may be corrected, a model that was not found may be renamed.
    """
    if not store.exists(IDENTITY):
        return
    before, now, committed = read_record(store, IDENTITY), identity_json(config, prints), Ledger(store).names()
    for name, kind in (("data", Kind.INGEST), ("encoder", Kind.BASE)):
        if before.get(name) != now[name] and Stage(kind).name in committed:
            raise ConfigError(
                f"{store.root} holds a run with another {name} ({_difference(before.get(name), now[name])}), "
                f"and its figures cannot be compared with this one's; choose another `name` or `output`, or "
                f"delete that folder"
            )


def identity_json(config: Config, prints: Mapping[str, Any]) -> dict[str, Any]:
    """What identity.json holds."""
    identity = {
        "data": {name: value for name, value in prints.items() if name not in BESIDE},
        "encoder": {"kind": config.encoder.kind, "model": prints["model"]},
    }
    # another general set changes no other figure: it is told here, but refuses nothing
    return identity | ({"general": prints["general"]} if "general" in prints else {})


def _difference(before: Any, now: Any) -> str:
    """The first key of two mappings whose values differ, for a person."""
    known = before if isinstance(before, dict) else {}
    changed = [key for key in {**known, **now} if known.get(key) != now.get(key)]
    if changed[0] == "kind":
        return f"its kind was {known.get('kind')!r}, is {now['kind']!r}"
    if changed[0] == "model":
        return "encoder.model is another one, or the files in its folder have changed"
    files = ", ".join({**(known.get(changed[0]) or {}), **(now.get(changed[0]) or {})})
    return f"the content of {files} differs"
