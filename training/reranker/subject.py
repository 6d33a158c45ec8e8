"""The re-ranker as the training loop sees it: its model, a step over lists of pairs, and validation by NDCG."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.errors import ConfigError
from training.encoders.rerankers.load import load_reranker
from training.encoders.rerankers.pair_encoder import IDENTITY, SIGMOID, PairEncoder
from training.encoders.tokens.features import Tokens
from training.encoders.tokens.packing import pack
from training.engine.engine import Place
from training.feed.batches import describe_mixture
from training.feed.feed import Pack, seed_of
from training.objective.gather import mean_over_ranks
from training.rank.forward import NotFiniteError, Pass, encode_shared
from training.rank.start import find_budget, settings_here, start_encoder
from training.reranker.lists import Lists, draw_lists
from training.reranker.load import Loaded
from training.reranker.losses import best_is_first, count_terms, loss_sums
from training.reranker.task import RerankTask
from training.reranker.validation import ndcg_of

BATCHES = ("train_batch_size", "train_micro_batch_size_per_gpu")
"""What a DeepSpeed file says about the retriever's batches, and not about lists."""


@dataclass(frozen=True)
class Prepared:
    """One micro-step of one rank, ready."""

    lists: Lists
    packs: list[Pack]
    denominator: float
    """What the ranks' sums of weighted terms are divided by: the mean over ranks of their weights."""
    pairs: int
    tokens: int
    padded: int
    """Tokens with padding."""


class Reranker:
    """One rank's share of it; see `training.subject.Subject`."""

    measure = "ndcg"

    def __init__(
        self, task: RerankTask, place: Place, loaded: Loaded, *, budget_tokens: int | None, say: Callable[[str], None]
    ) -> None:
        """
        Args:
            budget_tokens: of a pack, as the training before this one found; None: found by a probe, unless the task says it.
            say: a line that a person should see.
        """
        self._task, self._place, self._loaded = task, place, loaded
        self.validates = loaded.check is not None
        self.plan = replace(loaded.plan, rank=place.rank)
        self.settings, own = settings_here(task, self.plan)
        self.own = None if own is None else {name: value for name, value in own.items() if name not in BATCHES}
        self.peak_rate = task.reranker.learning_rate
        if mixture := describe_mixture(self.plan):
            say(mixture)
        try:
            self.model = start_encoder(task, place, say, load_reranker)
        except ConfigError as error:
            raise ConfigError(str(error).replace("training.lora", "reranker.lora")) from error
        if isinstance(self.model, PairEncoder):
            self.model.activation = SIGMOID if task.reranker.loss == "bce" else IDENTITY
        self.budget = task.budget_tokens or budget_tokens or self._find_budget()
        self._feed = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._next: tuple[tuple[int, int], Future[Prepared]] | None = None

    def begin(self, engine: Any) -> None:
        """See `Subject`."""
        self._engine = engine
        self._equal = self._place.world > 1 and (self.settings.grad_cache or engine.zero_optimization_stage() == 3)

    def micro_step(
        self, epoch: int, index: int, *, then: tuple[int, int] | None, boundary: bool, rate: float
    ) -> dict[str, float]:
        """See `Subject`."""
        started = time.monotonic()
        step = self._take((epoch, index), then)
        waited, device = time.monotonic() - started, self._place.device
        passes = Pass(self._engine, step.packs, self._place, cached=self.settings.grad_cache)
        scores = passes.forward()[:, 0]
        loss, gradient, top = self._loss(scores, step)
        loss, top = mean_over_ranks(torch.tensor([loss, top], dtype=torch.float64, device=device)).tolist()
        if not math.isfinite(loss):
            raise NotFiniteError(str(loss))
        passes.backward(gradient[:, None], boundary=boundary)
        return {
            "loss": loss,
            "first_relevant": top * self._place.world / self.plan.together,
            "pairs": step.pairs,
            "tokens": step.tokens,
            "padding": 1 - step.tokens / max(1, step.padded),
            "seconds_waiting": waited,
        }

    def validate(self) -> float:
        """See `Subject`."""
        check = self._loaded.check
        assert check is not None
        owner, column = np.nonzero(check.item_rows >= 0)
        pairs = self._pairs(check.query_rows[owner], check.item_rows[owner, column])
        self._engine.eval()
        with torch.no_grad():
            scores = encode_shared(self._engine, pairs, np.arange(len(pairs)), self._place, budget_tokens=self.budget)
        self._engine.train()
        scores_VD = np.zeros(check.item_rows.shape, np.float32)
        scores_VD[owner, column] = scores[:, 0].cpu().numpy()
        return float(ndcg_of(scores_VD, check).mean())

    def progress(self, figures: dict[str, float]) -> str:
        """See `Subject`."""
        return f"relevant item first {figures['first_relevant']:.0%}"

    def on_divergence(self, rate: float) -> str:
        """See `Subject`."""
        return (
            f"of the re-ranker, with learning rate {rate:.2e}; lower reranker.learning_rate (try a third), or set "
            f'training.precision = "float32"'
        )

    def on_full_memory(self) -> str:
        """See `Subject`."""
        return (
            f"a step of the re-ranker, {self.plan.together} lists on {self._place.world} rank(s), does not fit the GPU's memory; "
            f"lower reranker.batch_size or reranker.max_length, or set training.grad_cache = true, which needs the memory of "
            f"{self.budget} tokens only"
        )

    def state(self) -> dict[str, float]:
        """See `Subject`."""
        return {}

    def restore(self, state: dict[str, float]) -> None:
        """See `Subject`."""

    def figures(self) -> dict[str, Any]:
        """See `Subject`."""
        return {"items_loaded": len(self._loaded.items)}

    def close(self) -> None:
        """See `Subject`."""
        self._feed.shutdown(wait=True, cancel_futures=True)

    def prepare(self, epoch: int, step: int) -> Prepared:
        """Everything of one micro-step that needs no weights."""
        plan, world = self.plan, self.plan.world
        joined = self._draw(epoch, step)
        parts = [joined.rows(plan.rows_of(rank)) for rank in range(world)]
        lists, name = parts[plan.rank], self._task.reranker.loss
        tokens = self._pairs(*lists.pairs())
        packs: list[Pack] = []
        padded = 0
        for places in pack(tokens.lengths, self.budget):
            seed = seed_of(plan.seed, (epoch, step, plan.rank, len(packs)))
            packs.append(Pack(places, self.model.collate(tokens.take(places)), seed))
            padded += int(tokens.lengths[places].max()) * len(places)
        if self._equal:
            most = max(len(pack(self._pairs(*part.pairs()).lengths, self.budget)) for part in parts)
            packs += [Pack(np.zeros(0, np.int64), packs[-1].inputs, 0)] * (most - len(packs))
        terms = count_terms(name, *(torch.from_numpy(each) for each in (joined.gains, joined.real, joined.teacher))).numpy()
        denominator = float((joined.weights * terms).sum(dtype=np.float64)) / world
        return Prepared(lists, packs, denominator, len(tokens), int(tokens.lengths.sum()), padded)

    def _take(self, where: tuple[int, int], then: tuple[int, int] | None) -> Prepared:
        """The micro-step, and begin with the one after it."""
        waiting = self._next[1] if self._next is not None and self._next[0] == where else None
        ready = waiting.result() if waiting else self.prepare(*where)
        self._next = (then, self._feed.submit(self.prepare, *then)) if then is not None else None
        return ready

    def _loss(self, scores_P: Tensor, step: Prepared) -> tuple[float, Tensor, float]:
        """(this rank's loss, whose mean over ranks is that of all lists together; its gradient with respect to the scores [P]; in
        how many lists an item of the best grade is scored above all others)."""
        lists, device = step.lists, scores_P.device
        real, gains, teacher, weights = (
            torch.from_numpy(each).to(device) for each in (lists.real, lists.gains, lists.teacher, lists.weights)
        )
        scores_P = scores_P.detach().requires_grad_(True)
        with torch.enable_grad():
            scores_BL = torch.zeros(real.shape, device=device).masked_scatter(real, scores_P)
            sums = loss_sums(self._task.reranker.loss, scores_BL, gains, real, teacher)
            loss = (sums * weights).sum() / max(step.denominator, 1e-12)
            (gradient,) = torch.autograd.grad(loss, scores_P)
        return float(loss.detach()), gradient, float(best_is_first(scores_BL.detach(), gains, real).sum())

    def _draw(self, epoch: int, step: int) -> Lists:
        return draw_lists(self.plan, self._loaded.labels, self._loaded.gains, self._loaded.teacher, epoch, step)

    def _pairs(self, query_rows: Any, item_rows: Any) -> Tokens:
        return self._loaded.template.join(self._loaded.queries, self._loaded.items, query_rows, item_rows)

    def _find_budget(self) -> int:
        tokens = self._pairs(*self._draw(0, 0).pairs())
        return find_budget(self.model, tokens, self._place, seed=self._task.seed, together=len(tokens) // self.plan.world or 1)
