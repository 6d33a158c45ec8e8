"""Ray actors that outlive the stage that started them: starting a process that imports torch, DeepSpeed and FAISS costs seconds.

Only on one node without GPUs, where these seconds are most of a stage. An idle actor reserves nothing; a stage reserves its
CPUs with `reserved` while it works. On other clusters each stage starts its own actors and ends them, so a GPU is never kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

from cluster.errors import ClusterError
from cluster.session.resources import PoolSize

RESERVE_S = 600.0
"""How long a stage waits for CPUs that others hold."""


class Warm(Protocol):
    """Actors that can serve one stage after another."""

    def usable(self) -> bool:
        """Whether they still are there."""

    def end(self) -> None:
        """Stop them."""


W = TypeVar("W", bound=Warm)
_kept: dict[str, tuple[tuple[str, Hashable], Warm]] = {}
"""Kind -> (Ray session and variant, actors)."""


def stays_warm(pool: PoolSize) -> bool:
    """Whether the actors of a pool outlive their stage here."""
    import ray

    return not pool.gpus and sum(node["Alive"] for node in ray.nodes()) == 1


def warm(kind: str, variant: Hashable, start: Callable[[], W]) -> W:
    """The actors of a kind that are kept; started if there are none of this variant, in place of others."""
    wanted, kept = (_session(), variant), _kept.get(kind)
    if kept is None or kept[0] != wanted or not kept[1].usable():
        end_warm(kind)
        _kept[kind] = kept = (wanted, start())
    return kept[1]  # type: ignore[return-value]


def end_warm(kind: str | None = None) -> None:
    """End the actors of a kind, for instance because one of them died; None: all."""
    import ray

    for each in [*_kept] if kind is None else [kind]:
        (session, _), actors = _kept.pop(each, (("", None), None))
        if actors is not None and session == _session():  # those of a Ray that has ended are gone
            with suppress(ray.exceptions.RayError):
                actors.end()


def forget_warm() -> None:
    """Let go of all actors, because their Ray ends now."""
    _kept.clear()


def _session() -> str:
    import ray

    if not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    return f"{context.gcs_address} {context.get_job_id()}"


@contextmanager
def reserved(pool: PoolSize) -> Iterator[None]:
    """Hold the CPUs of a pool in Ray's accounts while warm actors, which reserve none, use them."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    group = None
    try:
        group = placement_group([{"CPU": pool.cpus}] * pool.count)
        ready, _ = ray.wait([group.ready()], timeout=RESERVE_S)
        if not ready:
            raise ClusterError(
                f"{pool.count} × {pool.cpus} CPU(s) of this Ray were not free within {RESERVE_S:.0f} s; end its other jobs, then "
                f"run the same command again: it resumes"
            )
        yield
    finally:
        if group is not None:
            remove_placement_group(group)
