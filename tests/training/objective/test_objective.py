"""The objective against a slow reference that spells out every switch query by query, in float64 with autograd."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cluster.labels.labels import Labels
from training.encoders.adapter import AdapterEncoder
from training.encoders.tokens.features import Vectors
from training.feed.batches import BatchPlan, Examples
from training.feed.feed import Feed, Prepared
from training.feed.tables import Guide, Tables
from training.objective.objective import Objective, Outcome
from training.settings import DistilSettings, GuideSettings, TrainingSettings

Q, N, D, G, TAU = 40, 50, 12, 6, 0.07


def lists_to_csr(lists: list[list[int]]) -> tuple[Any, Any]:
    return np.cumsum([0, *map(len, lists)], dtype=np.int64), np.array([row for each in lists for row in each], np.int64)


def world() -> tuple[Tables, Examples]:
    """Queries with one to three positives, groups of items, repeated queries' items, a guide."""
    rng = np.random.default_rng(0)
    offsets, rows = lists_to_csr([sorted(rng.permutation(N)[: rng.integers(1, 4)].tolist()) for _ in range(Q)])
    groups = np.where(np.arange(N) % 5 == 0, np.arange(N) // 10, -1)
    labels = Labels(Q, N, offsets, rows, np.ones(len(rows), np.int64), groups, np.arange(N) % 45)
    negative_offsets, negative_rows = lists_to_csr([rng.permutation(N)[:6].tolist() for _ in range(Q)])
    examples = Examples(
        np.arange(Q),
        offsets,
        rows,
        negative_offsets,
        negative_rows,
        rng.uniform(0.5, 2, Q).astype(np.float32),
        np.zeros(Q, np.int64),
        ("",),
        *(np.where(rng.random(len(x)) < 0.3, np.nan, rng.random(len(x))).astype(np.float32) for x in (rows, negative_rows)),
    )
    unit = [functional.normalize(torch.from_numpy(rng.normal(size=(n, G))), dim=1).half().numpy() for n in (Q, N)]
    features = [Vectors(rng.normal(size=(n, D)).astype(np.float32)) for n in (Q, N)]
    return Tables(*features, labels, Guide(*unit)), examples


TABLES, EXAMPLES = world()


def prepare(settings: TrainingSettings) -> Prepared:
    plan = BatchPlan(EXAMPLES, N, 8, 3, 2, 7, 0, 1)
    feed = Feed(plan, TABLES, AdapterEncoder(D, 8), settings, budget_tokens=16, device="cpu", equal_packs=False)
    prepared = feed.prepare(1, 2)
    feed.close()
    return prepared


def embeddings(step: Prepared) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return tuple(
        functional.normalize(torch.randn(n, D, generator=generator), dim=1)  # type: ignore[return-value]
        for n in (len(step.batch.query_rows), step.counts[0])
    )


def known(query: int, item: int) -> bool:
    """Whether an item is relevant to a query, shares a group with one that is, or has its text."""
    labels = TABLES.labels
    positives = labels.item_rows[labels.offsets[query] : labels.offsets[query + 1]]
    group = labels.group_codes[item]
    return any(
        item == p or (group >= 0 and group == labels.group_codes[p]) or labels.text_codes[item] == labels.text_codes[p]
        for p in positives
    )


def slow_row(query: Tensor, candidates: list[Tensor], target: int, settings: TrainingSettings, log_tau: Tensor) -> Tensor:
    scores = torch.stack([query @ candidate for candidate in candidates])
    if settings.loss == "triplet":
        others = [scores[c] for c in range(len(candidates)) if c != target]
        return sum((functional.relu(settings.margin + s - scores[target]) for s in others), torch.zeros(())) / max(1, len(others))
    return -torch.log_softmax(scores / log_tau.exp(), 0)[target]


def slow_distillation(query: Tensor, items: Tensor, step: Prepared, b: int, settings: DistilSettings, log_tau: Tensor) -> Tensor:
    batch = step.batch
    assert batch.teacher_BL is not None
    rows = [int(batch.positive_rows[b]), *batch.hard_BH[b].tolist()]
    told = [(row, float(t)) for row, t in zip(rows, batch.teacher_BL[b], strict=True) if not np.isnan(t)]
    if len(told) < 2 or (settings.loss == "margin_mse" and told[0][0] != rows[0]):
        return torch.zeros((), dtype=torch.float64)
    own = torch.stack([query @ items[int(np.flatnonzero(step.columns == row)[0])] for row, _ in told]) / log_tau.exp()
    wanted = torch.tensor([t for _, t in told], dtype=torch.float64) / settings.temperature
    if settings.loss == "kl":
        return torch.nn.functional.kl_div(own.log_softmax(0), wanted.softmax(0), reduction="sum")
    return (((own[0] - own[1:]) - (wanted[0] - wanted[1:])) ** 2).mean()


def slow(queries: Tensor, items: Tensor, step: Prepared, settings: TrainingSettings, log_tau: Tensor) -> tuple[Tensor, int]:
    """(loss, candidates left out)."""
    batch, total, left_out = step.batch, torch.zeros((), dtype=torch.float64), 0
    for length in [*settings.matryoshka, D]:
        q, i = (queries, items) if length == D else (functional.normalize(x[:, :length], dim=1) for x in (queries, items))
        for b, row in enumerate(batch.query_rows):
            own = int(np.flatnonzero(step.columns == batch.positive_rows[b])[0])
            mine = {int(x) for x in [*batch.hard_BH[b], *batch.random_BR[b]]}
            columns = []
            for c, item in enumerate(step.columns):
                if c != own and (known(int(row), int(item)) or (not settings.in_batch and int(item) not in mine)):
                    continue
                doubtful = False
                if c != own and settings.false_negative_margin is not None:
                    doubtful |= bool(queries[b] @ items[c] > queries[b] @ items[own] + settings.false_negative_margin)
                if c != own and settings.guide is not None and TABLES.guide is not None:
                    of_query = TABLES.guide.queries[row].astype(np.float32)
                    told = [float(of_query @ TABLES.guide.items[step.columns[x]].astype(np.float32)) for x in (c, own)]
                    margin = settings.guide.margin
                    doubtful |= told[0] > told[1] - margin
                left_out += doubtful and length == D
                if not doubtful:
                    columns.append(c)
            loss = slow_row(q[b], [i[c] for c in columns], columns.index(own), settings, log_tau)
            if settings.symmetric:
                askers = [a for a in range(len(q)) if a == b or not known(int(batch.query_rows[a]), int(batch.positive_rows[b]))]
                loss = (loss + slow_row(i[own], [q[a] for a in askers], askers.index(b), settings, log_tau)) / 2
            if settings.distil is not None:
                loss = loss + settings.distil.weight * slow_distillation(q[b], i, step, b, settings.distil, log_tau)
            total = total + float(batch.weights[b]) * loss
    return total / float(batch.weights.sum(dtype=np.float64)) / (len(settings.matryoshka) + 1), left_out


CASES: dict[str, dict[str, Any]] = {
    "info_nce": {},
    "own negatives only": {"in_batch": False},
    "symmetric": {"symmetric": True},
    "triplet": {"loss": "triplet", "margin": 0.3},
    "symmetric triplet": {"loss": "triplet", "symmetric": True},
    "matryoshka": {"matryoshka": [3, 7]},
    "learned temperature": {"learn_temperature": True, "symmetric": True, "matryoshka": [5]},
    "guard": {"false_negative_margin": 0.1},
    "guide": {"guide": GuideSettings(margin=0.1)},
    "distillation": {"distil": DistilSettings(weight=0.7, temperature=0.3)},
    "margins, learned temperature": {
        "distil": DistilSettings(loss="margin_mse", weight=0.01),
        "learn_temperature": True,
        "matryoshka": [5],
        "symmetric": True,
    },
    "distillation beside a triplet": {"distil": DistilSettings(), "loss": "triplet", "in_batch": False},
    "guide and guard": {"guide": GuideSettings(margin=0.2), "false_negative_margin": 0.3},
}


def run(settings: TrainingSettings, step: Prepared) -> Outcome:
    queries, items = embeddings(step)
    return Objective(settings, TABLES, rank=0, device=torch.device("cpu"))(queries, items, step, TAU)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_equal_the_slow_reference(name: str) -> None:
    settings = TrainingSettings(temperature=TAU, **CASES[name])
    step = prepare(settings)
    queries, items = (x.double().requires_grad_() for x in embeddings(step))
    log_tau = torch.tensor(np.log(TAU), dtype=torch.float64, requires_grad=True)
    want, left_out = slow(queries, items, step, settings, log_tau)
    want.backward()
    got = run(settings, step)
    assert float(got.loss) == pytest.approx(want.item(), rel=1e-5)
    torch.testing.assert_close(got.gradient_BD.double(), queries.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.gradient_UD.double(), items.grad, rtol=1e-4, atol=1e-6)
    learned = float(log_tau.grad) if settings.learn_temperature and log_tau.grad is not None else 0.0
    assert got.log_temperature == pytest.approx(learned, rel=1e-4)
    assert got.left_out == left_out
    assert (left_out > 0) == (settings.guide is not None or settings.false_negative_margin is not None)


@pytest.mark.parametrize(
    "name", ["info_nce", "margins, learned temperature", "learned temperature", "symmetric triplet", "guide and guard"]
)
def test_a_batch_looked_at_some_rows_at_a_time_has_the_same_loss_gradients_and_geometry(name: str) -> None:
    settings = TrainingSettings(temperature=TAU, **CASES[name])
    whole, parts = run(settings, prepare(settings)), run(settings, cut(settings))
    assert float(parts.loss) == pytest.approx(float(whole.loss), rel=1e-6)
    torch.testing.assert_close(parts.gradient_BD, whole.gradient_BD, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(parts.gradient_UD, whole.gradient_UD, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(parts.sums, whole.sums, rtol=1e-6, atol=1e-6)
    assert int(parts.left_out) == int(whole.left_out)
    assert float(parts.log_temperature) == pytest.approx(float(whole.log_temperature), rel=1e-5)


def cut(settings: TrainingSettings) -> Prepared:
    """The same step, three rows at a time."""
    step = replace(prepare(settings), chunk_rows=3)
    assert len(list(step.chunks())) == 3
    return step


def test_the_symmetric_term_treats_a_shared_positive_as_relevant_to_both_queries() -> None:
    """Two queries with one positive: neither is the other's negative, so only the forward direction has a loss."""
    settings = TrainingSettings(symmetric=True, temperature=TAU)
    offsets, rows = np.array([0, 1, 2]), np.array([4, 4])
    labels = Labels(2, N, offsets, rows, np.ones(2, np.int64), np.full(N, -1), np.arange(N))
    tables = Tables(Vectors(TABLES.queries.values[:2]), TABLES.items, labels)  # type: ignore[union-attr]
    examples = Examples(
        np.arange(2),
        offsets,
        rows,
        np.zeros(3, np.int64),
        np.zeros(0, np.int64),
        np.ones(2, np.float32),
        np.zeros(2, np.int64),
        ("",),
    )
    feed = Feed(
        BatchPlan(examples, N, 2, 0, 0, 1, 0, 1),
        tables,
        AdapterEncoder(D, 8),
        settings,
        budget_tokens=9,
        device="cpu",
        equal_packs=False,
    )
    step = feed.prepare(0, 0)
    assert step.columns.tolist() == [4]
    queries, items = embeddings(step)
    got = Objective(settings, tables, rank=0, device=torch.device("cpu"))(queries, items, step, TAU)
    assert float(got.loss) == 0.0
