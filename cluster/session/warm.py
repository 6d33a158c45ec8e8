"""Ray actors that outlive the stage that started them: starting a process that imports torch, DeepSpeed and FAISS costs seconds.

Only on one node without GPUs, where these seconds are most of a stage. An idle actor reserves nothing; a stage reserves its
CPUs with `reserved` while it works. On other clusters each stage starts its own actors and ends them, so a GPU is never kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from cluster.session.resources import PoolSize


class Warm(Protocol):
    """Actors that can serve one stage after another."""

    def end(self) -> None:
        """Stop them."""


W = TypeVar("W", bound=Warm)
_kept: dict[str, tuple[Hashable, Warm]] = {}


def stays_warm(pool: PoolSize) -> bool:
    """Whether the actors of a pool outlive their stage here."""
    import ray

    return not pool.gpus and sum(node["Alive"] for node in ray.nodes()) == 1


def warm(kind: str, variant: Hashable, start: Callable[[], W]) -> W:
    """The actors of a kind that are kept; started if there are none of this variant, in place of another one."""
    kept = _kept.get(kind)
    if kept is None or kept[0] != variant:
        end_warm(kind)
        _kept[kind] = kept = (variant, start())
    return kept[1]  # type: ignore[return-value]


def end_warm(kind: str | None = None) -> None:
    """End the actors of a kind, for instance because one of them died; None: all. Ray must still run."""
    for each in [*_kept] if kind is None else [kind]:
        if each in _kept:
            _kept.pop(each)[1].end()


@contextmanager
def reserved(pool: PoolSize) -> Iterator[None]:
    """Hold the CPUs of a pool in Ray's accounts while warm actors, which reserve none, use them."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([{"CPU": pool.cpus}] * pool.count)
    try:
        ray.get(group.ready())
        yield
    finally:
        remove_placement_group(group)
