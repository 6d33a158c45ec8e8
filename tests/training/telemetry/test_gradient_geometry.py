"""Figures of the loss geometry against a slow reference and by hand."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.telemetry.gradient_geometry import (
    DEAD_BELOW,
    HARD,
    IN_BATCH,
    KINDS,
    RANDOM,
    SPACE,
    _Softmax,
    _sum_on_device,
    alignment_uniformity,
    geometry_figures,
    geometry_sums,
)

TAU = 0.05


def loss_geometry(logits: Tensor, positive: Tensor, kind: Tensor) -> dict[str, float]:
    return geometry_figures(geometry_sums(logits, positive, kind), TAU)


def space(queries: Tensor, positives: Tensor) -> dict[str, float]:
    return dict(zip(SPACE, alignment_uniformity(queries, positives).tolist(), strict=True))


def slow_geometry(logits: Tensor, positive: Tensor, kind: Tensor) -> dict[str, float]:
    p_positive, hardest, effective, dead, above, counts = [], [], [], [], [], []
    of_kind: dict[int, list[tuple[float, float, bool, bool]]] = {code: [] for code in KINDS.values()}
    for row, pos, kinds in zip(logits.tolist(), positive.tolist(), kind.tolist(), strict=True):
        exps = [math.exp(x) for x in row]  # math.exp(-inf) is 0
        negatives = [c for c in range(len(row)) if c != pos and row[c] > -math.inf]
        if sum(exps):
            p_positive.append(exps[pos] / sum(exps))
        counts.append(len(negatives))
        if negatives:
            w = [exps[c] / sum(exps[n] for n in negatives) for c in negatives]
            hardest.append(max(w))
            effective.append(math.exp(-sum(x * math.log(x) for x in w)))
        for c in negatives:
            p = exps[c] / sum(exps)
            dead.append(p < DEAD_BELOW)
            above.append(row[c] > row[pos])
            of_kind[kinds[c]].append((p, row[c] * TAU, p < DEAD_BELOW, row[c] > row[pos]))
    all_pull = sum(entry[0] for entries in of_kind.values() for entry in entries)
    by_kind = {}
    for name, code in KINDS.items():
        p, cosine, is_dead, is_above = zip(*of_kind[code], strict=True) if of_kind[code] else ((), (), (), ())
        by_kind |= {
            f"gradient_share_{name}": sum(p) / all_pull if all_pull else 0.0,
            f"cosine_{name}": mean(cosine),
            f"dead_{name}": mean(is_dead),
            f"above_{name}": mean(is_above),
        }
    return {
        "positive_probability": mean(p_positive),
        "hardest_weight": mean(hardest),
        "effective_negatives": mean(effective),
        "dead_negatives": mean(dead),
        "above_positive": mean(above),
        "negatives_per_query": mean(counts),
    } | by_kind


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def random_case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 11, generator=generator) * 5
    positive = torch.randint(11, (6,), generator=generator)
    masked = (torch.rand(6, 11, generator=generator) < 0.3).scatter(1, positive[:, None], False)
    kind = torch.randint(4, (6, 11), generator=generator, dtype=torch.uint8)
    return logits.masked_fill(masked, -torch.inf), positive, kind


@pytest.mark.parametrize("seed", range(5))
def test_loss_geometry_equals_slow_reference(seed: int) -> None:
    logits, positive, kind = random_case(seed)
    assert loss_geometry(logits, positive, kind) == pytest.approx(slow_geometry(logits, positive, kind), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_sums_of_a_gpu_equal_those_of_a_cpu(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, positive, kind = random_case(seed)
    want = geometry_sums(logits, positive, kind)
    seen: list[Tensor] = []
    monkeypatch.setattr(
        "training.telemetry.gradient_geometry_sums.sum_rows", lambda *parts: seen.extend(map(torch.from_numpy, parts[:6]))
    )
    geometry_sums(logits, positive, kind)
    got = _sum_on_device(_Softmax(*seen))
    torch.testing.assert_close(got[2:], want[2:], rtol=1e-5, atol=1e-5)
    assert got[0] == want[0]


def test_loss_geometry_by_hand() -> None:
    logits = torch.log(torch.tensor([[4.0, 1.0, 1.0, 2.0]]))
    kind = torch.tensor([[IN_BATCH, HARD, RANDOM, IN_BATCH]], dtype=torch.uint8)
    got = loss_geometry(logits, torch.tensor([0]), kind)
    assert got["positive_probability"] == pytest.approx(0.5)
    assert got["hardest_weight"] == pytest.approx(0.5)
    assert got["effective_negatives"] == pytest.approx(2**1.5)  # entropy 1.5 bits
    assert got["gradient_share_hard"] == got["gradient_share_random"] == pytest.approx(0.25)
    assert got["gradient_share_in_batch"] == pytest.approx(0.5)
    assert got["dead_negatives"] == got["above_positive"] == 0.0
    assert got["negatives_per_query"] == 3.0


def test_gradient_shares_are_those_of_autograd() -> None:
    logits, positive, kind = random_case(7)
    leaf = logits.clone().requires_grad_()
    functional.cross_entropy(leaf, positive).backward()
    assert leaf.grad is not None
    pull = leaf.grad.scatter(1, positive[:, None], 0.0)
    got = loss_geometry(logits, positive, kind)
    want = [(pull[kind == code].sum() / pull.sum()).item() for code in KINDS.values()]
    assert [got[f"gradient_share_{name}"] for name in KINDS] == pytest.approx(want, rel=1e-5)


def test_sums_of_parts_give_the_figures_of_the_whole() -> None:
    logits, positive, kind = random_case(4)
    parts = [geometry_sums(logits[rows], positive[rows], kind[rows]) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    whole = loss_geometry(logits, positive, kind)
    assert geometry_figures(torch.stack(parts).sum(0), TAU) == pytest.approx(whole, rel=1e-6)


def test_equal_negatives_count_fully() -> None:
    got = loss_geometry(torch.zeros(3, 8), torch.tensor([0, 1, 2]), torch.zeros(3, 8, dtype=torch.uint8))
    assert got["effective_negatives"] == pytest.approx(7.0)
    assert got["hardest_weight"] == pytest.approx(1 / 7)


def test_rows_without_negatives_give_no_nan_and_leave_the_means() -> None:
    logits, positive, kind = random_case(3)
    want = loss_geometry(logits, positive, kind)
    only_positive = torch.full((1, 11), -torch.inf)
    only_positive[0, 4] = 3.0
    got = loss_geometry(torch.cat([logits, only_positive]), torch.cat([positive, torch.tensor([4])]), torch.cat([kind, kind[:1]]))
    assert got.pop("negatives_per_query") == pytest.approx(want.pop("negatives_per_query") * 6 / 7)
    assert got.pop("positive_probability") == pytest.approx((want.pop("positive_probability") * 6 + 1) / 7)
    assert got == pytest.approx(want)
    for rows in (only_positive, only_positive[:0]):
        figures = loss_geometry(rows, torch.tensor([4])[: len(rows)], kind[: len(rows)])
        assert figures.pop("positive_probability") == float(len(rows))
        assert set(figures.values()) == {0.0}


def test_huge_logits_give_finite_figures_and_nan_shows() -> None:
    logits = torch.tensor([[1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 0.0]])
    got = loss_geometry(logits, torch.tensor([0, 0]), torch.full((2, 3), HARD, dtype=torch.uint8))
    assert all(math.isfinite(x) for x in got.values())
    assert got["above_positive"] == 0.5
    assert got["gradient_share_hard"] == 1.0
    diverged = loss_geometry(logits * math.nan, torch.tensor([0, 0]), torch.zeros(2, 3, dtype=torch.uint8))
    assert math.isnan(diverged["positive_probability"])


def test_alignment_and_uniformity_equal_the_formulas_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = functional.normalize(torch.randn(9, 4, generator=generator), dim=1)
    positives = functional.normalize(torch.randn(9, 4, generator=generator), dim=1)
    got = space(queries, positives)
    assert got["alignment"] == pytest.approx((queries - positives).norm(dim=1).pow(2).mean().item(), rel=1e-5)
    sides = [torch.pdist(x).pow(2) for x in (queries, positives)]
    want = sum(side.mul(-2).exp().mean().log().item() for side in sides) / 2
    assert got["uniformity"] == pytest.approx(want, rel=1e-5)
    want = sum((1 - side / 2).mean().item() for side in sides) / 2
    assert got["mean_pairwise_cosine"] == pytest.approx(want, abs=1e-6)


def test_collapse_shows_as_cosine_one_and_uniformity_zero() -> None:
    same = torch.tensor([[0.6, 0.8]]).expand(5, 2)
    got = space(same, same)
    assert got == pytest.approx({"alignment": 0.0, "uniformity": 0.0, "mean_pairwise_cosine": 1.0}, abs=1e-6)


@pytest.mark.parametrize("num_rows", [0, 1])
def test_fewer_than_two_rows_give_zeros_not_nan(num_rows: int) -> None:
    x = torch.tensor([[0.6, 0.8]])[:num_rows]
    assert space(x, x) == {"alignment": 0.0, "uniformity": 0.0, "mean_pairwise_cosine": 0.0}
