"""Which stages must be there before one that is asked for alone: told before the data is read or Ray starts."""

from __future__ import annotations

from cluster.commits import Ledger
from cluster.errors import ConfigError
from cluster.storage import Store, check_writable
from jobs.config.config import Config
from jobs.run.plan import is_beside, stage_names


def refuse_out_of_order(config: Config, name: str, makes: frozenset[str]) -> None:
    """Check that stage `name` can run now.

    Args:
        makes: kinds of stages that are made on the way.

    Raises:
        ConfigError: the run has no such stage, or one before it is neither committed nor made on the way.
        ClusterError: the storage does not answer.
    """
    names, ledger = _names_with(config, name), _ledger(config)
    for before in names[: names.index(name)]:
        if not is_beside(before) and _kind(before) not in makes and ledger.find(before) is None:
            raise ConfigError(
                f"{name} needs {before}, which is not committed in {config.root}; run the earlier stages "
                f"first ({before} is the first that is missing), or `hardmine run` for all of them"
            )


def refuse_untrained(config: Config, number: int) -> None:
    """Raises ConfigError: the run has no round `number`, or it is not trained."""
    name = f"round-{number:02d}-train"
    _names_with(config, name)
    if _ledger(config).find(name) is None:
        raise ConfigError(
            f"round {number} is not trained: {name} is not committed in {config.root}; run `hardmine train` for it first"
        )


def _names_with(config: Config, name: str) -> list[str]:
    names = stage_names(config)
    if name not in names:
        first = 0 if config.rounds.warmup_epochs else 1
        rounds = f"{first} to {config.rounds.mined}" if config.rounds.mined > first else str(first)
        raise ConfigError(
            f"{name} is not a stage of this run: expected a --round of {rounds} (rounds.warmup_epochs = "
            f"{config.rounds.warmup_epochs}, rounds.mined = {config.rounds.mined}; nothing is mined in "
            f"round 0); choose another round, or change [rounds]"
        )
    return names


def _ledger(config: Config) -> Ledger:
    store = Store(config.root, config.storage)
    check_writable(store)
    return Ledger(store)


def _kind(name: str) -> str:
    if "teacher" in name:
        return "teacher"
    if name.startswith("guide"):
        return "guide"
    if name == "sequence":  # the untrained encoder, which is the run's base
        return "base"
    if name.endswith("near-duplicates"):
        return "near"
    last = name.partition(" ")[0].rpartition("-")[2]
    return "search" if last in ("hits", "bm25", "pairs", "score") else last
