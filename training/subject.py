"""What a training may train: the retriever, or the re-ranker. The loop knows them by this interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from training.encoders.base import Encoder
from training.engine.engine import Place
from training.feed.batches import BatchPlan
from training.reranker.task import RerankTask
from training.settings import TrainingSettings
from training.task import Task, TrainTask


class Subject(Protocol):
    """What is trained, on one rank: what a step is, and what a better model is. The loop does the rest."""

    measure: str
    """Name of the figure that validation gives; higher is better."""
    validates: bool
    """Whether there is anything to validate on."""
    settings: TrainingSettings
    """As they hold on this number of ranks."""
    own: dict[str, Any] | None
    """The user's DeepSpeed configuration."""
    peak_rate: float
    """The learning rate after warm-up."""
    plan: BatchPlan
    model: Encoder
    budget: int
    """Tokens of a pack."""

    def begin(self, engine: Any) -> None:
        """Called once, before the first step, with the engine around `model`."""

    def micro_step(
        self, epoch: int, index: int, *, then: tuple[int, int] | None, boundary: bool, rate: float
    ) -> dict[str, float]:
        """Add the gradient of a micro-step to the weights'; collective.

        Args:
            then: the micro-step after this one; None: there is none.
            boundary: the optimizer steps after it, with the learning rate `rate`.

        Returns:
            Its figures: "loss" over all ranks, "tokens" and "seconds_waiting" of this one, and more.

        Raises:
            NotFiniteError: the loss is NaN or infinite, on all ranks.
        """

    def validate(self) -> float:
        """`measure` of the model as it is, where it `validates`. Collective."""

    def progress(self, figures: dict[str, float]) -> str:
        """What people watch beside the loss, from a micro-step's figures."""

    def on_divergence(self, rate: float) -> str:
        """What training was at when it diverged, and what to change."""

    def on_full_memory(self) -> str:
        """What does not fit a GPU, and what to change."""

    def state(self) -> dict[str, float]:
        """What it learns beside the model's weights; empty: nothing."""

    def restore(self, state: dict[str, float]) -> None:
        """Take over what `state` gave, if it is not empty."""

    def figures(self) -> dict[str, Any]:
        """Its own figures of the result."""

    def close(self) -> None:
        """End its threads."""


def load(task: Task, world: int) -> Any:
    """What the ranks of a training share: everything of a task but its model.

    Raises:
        DataError: no training query has a relevant item. ConfigError: the examples do not fill an optimizer step.
    """
    if isinstance(task, RerankTask):
        from training.reranker import load as reranker

        return reranker.load(task, world)
    from training.retriever import load as retriever

    assert isinstance(task, TrainTask)
    return retriever.load(task, world)


def make_subject(task: Task, place: Place, loaded: Any, *, budget_tokens: int | None, say: Callable[[str], None]) -> Subject:
    """What a task trains, on this rank."""
    if isinstance(task, RerankTask):
        from training.reranker.subject import Reranker

        return Reranker(task, place, loaded, budget_tokens=budget_tokens, say=say)
    from training.retriever.subject import Retriever

    assert isinstance(task, TrainTask)
    return Retriever(task, place, loaded, budget_tokens=budget_tokens, say=say)
