"""The data and the base model that a run's folder belongs to; any other run is refused there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.commits import Ledger
from cluster.errors import ConfigError
from cluster.storage.records import read_record
from cluster.storage.store import Store
from jobs.config.config import Config
from jobs.record.origin import IDENTITY, command_of
from jobs.record.stages import Kind, Stage
from jobs.stages.ingest.fingerprints import BESIDE


def refuse_other_run(config: Config, store: Store, prints: Mapping[str, Any]) -> None:
    """Raises ConfigError: the folder holds commits on other data or of another base model.

    Only commits count: refused data may be corrected, and a missing model renamed.
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
    """The content of identity.json."""
    identity: dict[str, Any] = {
        "data": {name: value for name, value in prints.items() if name not in BESIDE},
        "encoder": {"kind": config.encoder.kind, "model": prints["model"]},
    }
    command = command_of(config)
    if command is not None:
        identity["command"] = command
    # another general set changes no other figure, another one that is mixed in the trainings: recorded, but nothing is refused
    return identity | {name: prints[name] for name in ("general", "mix") if name in prints}


def _difference(before: Any, now: Any) -> str:
    """The first difference of two mappings, in words."""
    known = before if isinstance(before, dict) else {}
    changed = [key for key in {**known, **now} if known.get(key) != now.get(key)]
    if changed[0] == "kind":
        return f"its kind was {known.get('kind')!r} and is now {now['kind']!r}"
    if changed[0] == "model":
        return "encoder.model is another model, or the files in its folder have changed"
    files = ", ".join({**(known.get(changed[0]) or {}), **(now.get(changed[0]) or {})})
    return f"the content of {files} differs"
