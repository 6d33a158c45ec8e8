"""The loss of one step and its gradient with respect to the embeddings: what the settings' many switches come to.

The embeddings are cut from the encoder's graph first, so that the same few lines serve a step that keeps its activations
and one that computes them again (GradCache, Gao 2021, arXiv 2101.06983), and a batch is looked at some rows at a time.

B local queries, U items that this rank encoded, C columns (items of all ranks), W ranks, D dimensions.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.feed.candidate_masks import to_device
from training.feed.feed import Prepared, column_of
from training.feed.tables import Tables
from training.objective.distillation import distillation
from training.objective.gather import gather_rows
from training.objective.losses import info_nce, likely_positives, scores, triplet, truncated
from training.settings import TrainingSettings
from training.telemetry.gradient_geometry import NUM_SUMS, geometry_sums


@dataclass(frozen=True)
class Outcome:
    """Of this rank's rows; the mean over ranks of each is that of the joined batch."""

    loss: Tensor
    """Scalar."""
    gradient_BD: Tensor  # noqa: N815
    """float32, with respect to the local queries."""
    gradient_UD: Tensor  # noqa: N815
    """float32, with respect to the items that this rank encoded."""
    log_temperature: Tensor
    """Gradient with respect to log τ, scalar; 0 where it is not learned."""
    sums: Tensor
    """`geometry_sums` of the local rows."""
    left_out: Tensor
    """Candidates that a guard or guide took for unlabelled positives, scalar."""
    positives_BD: Tensor  # noqa: N815
    """Embeddings of the positives, without gradient."""
    geometry_seconds: float


class Objective:
    """Loss and gradients of prepared steps. Nothing here makes the host wait for a device."""

    def __init__(self, settings: TrainingSettings, tables: Tables, *, rank: int, device: torch.device) -> None:
        self.settings, self.tables, self.rank, self.device = settings, tables, rank, device

    def __call__(self, queries_BD: Tensor, items_UD: Tensor, step: Prepared, temperature: float) -> Outcome:
        """
        Args:
            queries_BD: unit vectors of the local queries; their graph, if any, is not followed.
            items_UD: unit vectors of the items that this rank encodes.
            temperature: τ.

        Collective where the step gathers.
        """
        queries, own = _leaf(queries_BD), _leaf(items_UD)
        # gathered with gradient; each rank's cross-entropy is over its local rows, and the mean over ranks of what comes
        # out is the mean over all rows (the cheapest form that is exact)
        every_item = gather_rows(own, counts=step.counts) if step.shared else own
        everyone = queries
        if self.settings.symmetric and step.shared:
            everyone = gather_rows(queries, counts=step.query_counts)
        leaves = _Leaves(
            queries,
            _leaf(every_item) if step.shared else own,
            queries if everyone is queries else _leaf(everyone),
            torch.full((), math.log(temperature), device=self.device, requires_grad=True),
        )
        loss, left_out = torch.zeros((2,), device=self.device)
        sums, seconds = torch.zeros(NUM_SUMS, dtype=torch.float64, device=self.device), 0.0
        for rows in step.chunks():
            part = _Part(self, step, rows, leaves, temperature)
            loss += part.backward()
            left_out += part.left_out
            started = time.perf_counter()
            sums += geometry_sums(part.logits_BC, part.column_B, part.kind_BC)
            seconds += time.perf_counter() - started
        if step.shared:
            # to the ranks that encoded them, summed over those that used them
            every_item.backward(_gradient(leaves.items))  # type: ignore[no-untyped-call]
        if everyone is not queries:
            everyone.backward(_gradient(leaves.askers))  # type: ignore[no-untyped-call]
        column = to_device(step.positive_column, self.device)
        return Outcome(
            loss,
            _gradient(queries),
            _gradient(own),
            _gradient(leaves.log_temperature),
            sums,
            left_out,
            leaves.items.detach()[column],
            seconds,
        )


class _Leaves(NamedTuple):
    """What the loss is differentiated by."""

    queries: Tensor
    """[B, D]"""
    items: Tensor
    """[C, D]"""
    askers: Tensor
    """[W * B, D] queries of all ranks, for the symmetric term; else the local ones."""
    log_temperature: Tensor


class _Part:
    """Some rows of a step."""

    def __init__(self, objective: Objective, step: Prepared, rows: slice, leaves: _Leaves, temperature: float) -> None:
        self._objective, self._step, self._rows, self._leaves = objective, step, rows, leaves
        self._temperature = temperature
        self._shared = {
            "weights_B": self._tensor(step.batch.weights[rows]),
            "denominator": torch.full((), step.denominator, device=objective.device),
        }
        self.column_B = self._tensor(step.positive_column[rows])
        self._masked_BC, self.kind_BC = step.candidates.masks(rows, objective.device, in_batch=step.in_batch)
        self.left_out = self._leave_out()
        self._lists = self._taught_lists()
        self.logits_BC: Tensor
        """At full length, divided by the temperature, -inf where a column is no candidate; set by `backward`."""

    def _tensor(self, values: npt.NDArray[Any]) -> Tensor:
        return to_device(values, self._objective.device)

    @torch.no_grad()
    def _leave_out(self) -> Tensor:
        """Mask candidates that are taken for unlabelled positives; returns how many."""
        settings, guide = self._objective.settings, self._objective.tables.guide
        found: list[Tensor] = []
        if settings.false_negative_margin is not None:
            own = scores(self._leaves.queries[self._rows], self._leaves.items)
            found.append(likely_positives(own, self.column_B, -settings.false_negative_margin))
        if guide is not None and settings.guide is not None:
            told = scores(
                self._tensor(guide.queries[self._step.batch.query_rows[self._rows]]),
                self._tensor(guide.items[self._step.columns]),
            )
            found.append(likely_positives(told, self.column_B, settings.guide.margin))
        before = self._masked_BC.sum()
        for more in found:
            self._masked_BC = self._masked_BC | more
        return self._masked_BC.sum() - before

    def backward(self) -> Tensor:
        """The rows' share of the loss, without gradient; its gradient is added to the leaves."""
        settings, full = self._objective.settings, self._leaves.items.shape[1]
        lengths = [*settings.matryoshka, full]
        total = torch.zeros((), device=self._objective.device)
        for length in lengths:
            queries, items, askers = self._leaves.queries[self._rows], self._leaves.items, self._leaves.askers
            if length != full:
                queries, items = truncated(queries, length), truncated(items, length)
                askers = truncated(askers, length) if settings.symmetric else askers
            loss, logits_BC = self._loss(queries, items, self.column_B, self._masked_BC)
            if length == full:
                self.logits_BC = logits_BC
            if settings.symmetric:
                loss = (loss + self._loss(items[self.column_B], askers, *self._among_queries())[0]) / 2
            if self._lists is not None:
                loss = loss + self._distil(queries, items, *self._lists)
            loss = loss / len(lengths)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _loss(self, rows: Tensor, columns: Tensor, target_B: Tensor, masked_BC: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, logits without gradient) of each row's target among the columns."""
        settings = self._objective.settings
        if settings.loss == "triplet":
            loss = triplet(rows, columns, target_B, margin=settings.margin, masked_BC=masked_BC, **self._shared)
            with torch.no_grad():
                protected = masked_BC.scatter(1, target_B[:, None], False)
                return loss, (scores(rows, columns) / self._temperature).masked_fill_(protected, -torch.inf)
        # made anew for every backward pass, each of which frees its graph
        temperature = self._leaves.log_temperature.exp() if settings.learn_temperature else self._temperature
        return info_nce(rows, columns, target_B, temperature=temperature, masked_BC=masked_BC, **self._shared)

    def _taught_lists(self) -> tuple[Tensor, Tensor] | None:
        """(columns [B, L] of each row's positive and mined negatives, a teacher's scores [B, L]); None: none is learned from."""
        batch, rows = self._step.batch, self._rows
        if self._objective.settings.distil is None or batch.teacher_BL is None:
            return None
        items_BL = np.concatenate([batch.positive_rows[rows, None], batch.hard_BH[rows]], axis=1)
        # a row with fewer negatives has its positive in their place, which the teacher's NaN leaves out
        items_BL = np.where(items_BL < 0, items_BL[:, :1], items_BL)
        columns_BL = column_of(items_BL.ravel(), self._step.columns).reshape(items_BL.shape)
        return self._tensor(columns_BL), self._tensor(batch.teacher_BL[rows])

    def _distil(self, queries: Tensor, items: Tensor, columns_BL: Tensor, teacher_BL: Tensor) -> Tensor:
        """The weighted distillation loss of the rows."""
        settings = self._objective.settings
        assert settings.distil is not None
        temperature = self._leaves.log_temperature.exp() if settings.learn_temperature else self._temperature
        with torch.autocast(queries.device.type, enabled=False):
            logits_BL = (queries[:, None, :] * items[columns_BL]).sum(-1) / temperature
        return settings.distil.weight * distillation(logits_BL, teacher_BL, settings.distil, **self._shared)

    def _among_queries(self) -> tuple[Tensor, Tensor]:
        """(the place of each row's query among the askers, mask of those for which its positive is relevant too)."""
        batch, step = self._step.batch, self._step
        first = sum(step.query_counts[: self._objective.rank]) if step.shared else 0
        askers = step.joined_queries if step.shared else batch.query_rows
        known = self._objective.tables.labels.known_mask(askers, batch.positive_rows[self._rows]).T
        return self._tensor(np.arange(len(batch.query_rows))[self._rows] + first), self._tensor(known)


def _leaf(x: Tensor) -> Tensor:
    return x.detach().float().requires_grad_()


def _gradient(leaf: Tensor) -> Tensor:
    return leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
