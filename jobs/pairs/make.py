"""`hardmine pairs`: the stages one after another, each a set of tasks that are committed one by one, and what they add up to.

work/<key>/read        rows by client                    work/<key>/labels     tables/queries, tables/qrels, rejected queries
work/<key>/texts       texts with counts                 work/<key>/generated  queries that a language model wrote
work/<key>/spelling    spelling variants                 work/<key>/synthetic  the synthetic ones, as many as may be
work/<key>/items       the corpus by id, tables/corpus   work/<key>/rejected   rejected.csv
work/<key>/sessions    what was seen, by query text      pairs.json, pairs.md, pairs.html; then work/ is deleted
work/<key>/popular     clicks of every item
work/<key>/from-items  pairs from items
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.commits import digest
from cluster.errors import ConfigError
from cluster.lease import Lease
from cluster.session.progress import Progress
from cluster.session.session import check_shared, ray_session
from cluster.storage.store import Store
from cluster.storage.usable import check_writable
from jobs.pairs.output.write import write_outputs
from jobs.pairs.reading.sources import Input, find_input
from jobs.pairs.settings import PairsSettings
from jobs.pairs.stages import run_stages
from jobs.pairs.work import Work
from jobs.stages.ingest.reading.files import source_files

VERSION = 1


def make_pairs(
    logs: Sequence[str], to: str, settings: PairsSettings, *, progress: Progress, takeover: bool = False
) -> dict[str, Any]:
    """Make the tables of a run from logs; returns `pairs.json`. The same call again resumes, or tells what is there.

    Args:
        logs: addresses of logs, sheets and earlier outputs.
        to: folder or s3:// prefix of the result; it holds one result.

    Raises:
        ConfigError: `to` holds another result. DataError: a log is missing, of no known kind, or says nothing at all.
    """
    store = Store(to, settings.storage)
    for url in logs:
        if f"{store.root}/".startswith(f"{Store(url, settings.storage).root}/"):
            raise ConfigError(f"expected --to outside of the logs, found {store.root} in {url}; its tables would be read as logs")
    inputs = [find_input(url, settings.storage) for url in logs]
    key = _key(inputs, settings)
    done = _finished(store, key)
    if done is not None:
        progress.say(f"✓ {store.root} holds the pairs of these logs and settings already")
        store.delete("work")  # of a call that was killed after its last line
        return done
    check_writable(store)
    with Lease(store, takeover=takeover) as lease:
        store.sweep()
        _begin(store, key, progress)
        with ray_session(settings.cluster) as size:
            check_shared(store, size)
            summary = run_stages(Work(store, f"work/{key}", settings, sum(one.bytes for one in inputs), progress), inputs, key)
        lease.check()
        write_outputs(store, summary)
        store.delete("work")
    return summary


def _key(inputs: Sequence[Input], settings: PairsSettings) -> str:
    own = settings.model_dump(exclude={"cluster": True, "storage": True, "generate": {"url"}})
    corpus = None
    if settings.corpus.path is not None:
        files, names = source_files(settings.corpus.path, settings.storage)
        corpus = [(name, files.fingerprint(name)) for name in names]
    return digest({"version": VERSION, "logs": [one.fingerprints for one in inputs], "settings": own, "corpus": corpus})


def _finished(store: Store, key: str) -> dict[str, Any] | None:
    if not store.exists("pairs.json"):
        return None
    value: dict[str, Any] = store.read_json("pairs.json")
    if value.get("key") != key:
        raise ConfigError(
            f"{store.root} holds the pairs of other logs or other settings; give another folder with --to, or delete this one"
        )
    return value


def _begin(store: Store, key: str, progress: Progress) -> None:
    """Take over what an interrupted call with the same logs and settings left; what another one left is deleted."""
    there = {path.split("/")[1] for path in store.list("work")}
    if there - {key}:
        progress.say("! an unfinished call with other logs or settings is deleted")
        store.delete("work")
        store.delete("tables")
    elif not there and store.list("tables"):
        raise ConfigError(
            f"{store.root} has a folder `tables` that is not of an unfinished `hardmine pairs`; give an empty folder with --to"
        )
