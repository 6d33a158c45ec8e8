"""Where the ranks of a training find what to do next; its process also waits for Ray Train, which the driver need not import."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.session.resources import PoolSize


class Desk:
    """What the ranks do next, and what they have done; runs as a Ray actor."""

    def __init__(self, world: int) -> None:
        self._world = world
        self._tasks: list[Any] = []
        self._finished: dict[int, int] = {}
        self._changed = asyncio.Condition()

    async def fit(self, pool: PoolSize, reserve: bool, variables: dict[str, str]) -> None:
        """Run the ranks until they end; raises what Ray Train does when one of them fails."""
        import ray

        os.environ.update(variables)

        from training.distributed.ranks import make_trainer

        desk = ray.get_runtime_context().current_actor
        await asyncio.to_thread(lambda: make_trainer(desk, pool, reserve=reserve).fit())

    async def put(self, task: list[Any]) -> None:
        """Hand out a task, as a list of references to it and to what it reads; an empty list ends the ranks."""
        async with self._changed:
            self._tasks.append(task)
            self._changed.notify_all()

    async def take(self, number: int) -> list[Any]:
        """The task of that number, as soon as there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: number < len(self._tasks))
        return list(self._tasks[number])

    async def finish(self, number: int) -> None:
        """Called by each rank."""
        async with self._changed:
            self._finished[number] = self._finished.get(number, 0) + 1
            self._changed.notify_all()

    async def wait(self, number: int) -> None:
        """Return when all ranks have finished a task."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._finished.get(number, 0) == self._world)
            self._tasks[number] = []
