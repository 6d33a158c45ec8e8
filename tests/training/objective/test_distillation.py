"""Distillation against slow references, sentence-transformers' losses of the same names, and gradcheck."""

import math

import pytest
import torch
from torch import Tensor

from training.objective.distillation import distillation
from training.settings import DistilSettings

B, L, NAN = 5, 4, float("nan")


def lists(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, a teacher's scores of which some are missing, weights. The last row has one score, the one before no positive."""
    generator = torch.Generator().manual_seed(seed)
    logits_BL = torch.randn(B, L, generator=generator, dtype=torch.float64) * 3
    teacher_BL = torch.rand(B, L, generator=generator, dtype=torch.float64)
    teacher_BL[1, 2] = NAN
    teacher_BL[B - 2, 0] = NAN
    teacher_BL[B - 1, 1:] = NAN
    return logits_BL, teacher_BL, torch.rand(B, generator=generator, dtype=torch.float64) + 0.1


def slow_row(logits: list[float], teacher: list[float], settings: DistilSettings) -> float:
    read = [place for place, score in enumerate(teacher) if not math.isnan(score)]
    t = {place: teacher[place] / settings.temperature for place in read}
    if settings.loss == "kl":
        if len(read) < 2:
            return 0.0
        below_t, below_s = sum(math.exp(t[place]) for place in read), sum(math.exp(logits[place]) for place in read)
        shares = {place: math.exp(t[place]) / below_t for place in read}
        return sum(p * (math.log(p) - math.log(math.exp(logits[place]) / below_s)) for place, p in shares.items())
    if 0 not in read or len(read) < 2:
        return 0.0
    errors = [(logits[0] - logits[n]) - (t[0] - t[n]) for n in read if n]
    return sum(error**2 for error in errors) / len(errors)


@pytest.mark.parametrize("loss", ["kl", "margin_mse"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_distillation_equals_the_slow_reference(loss: str, seed: int, weighted: bool) -> None:
    settings = DistilSettings(loss=loss, temperature=0.3, weight=7.0)
    logits, teacher, weights = lists(seed)
    got = distillation(logits, teacher, settings, weights_B=weights if weighted else None).item()
    factors = weights.tolist() if weighted else [1.0] * B
    want = sum(w * slow_row(logits[b].tolist(), teacher[b].tolist(), settings) for b, w in enumerate(factors)) / sum(factors)
    assert got == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("loss", ["kl", "margin_mse"])
def test_the_gradient_is_that_of_finite_differences(loss: str) -> None:
    settings = DistilSettings(loss=loss, temperature=0.4)
    logits, teacher, weights = lists(9)
    assert torch.autograd.gradcheck(lambda x: distillation(x, teacher, settings, weights_B=weights), logits.requires_grad_())
    assert logits.grad is None
    distillation(logits, teacher, settings).backward()
    assert logits.grad is not None
    assert logits.grad[B - 1].tolist() == [0.0] * L, "one item is no list"
    assert float(logits.grad[1, 2]) == 0.0, "the teacher has not read it"


@pytest.mark.slow
def test_the_losses_are_those_of_sentence_transformers() -> None:
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss

    generator = torch.Generator().manual_seed(3)
    query, *items = (torch.randn(B, 8, generator=generator) for _ in range(L + 1))
    teacher = torch.rand(B, L, generator=generator)
    scores = torch.stack([(query * item).sum(1) for item in items], dim=1)
    kl = DistillKLDivLoss(torch.nn.Identity(), student_temperature=0.5, teacher_temperature=0.2)
    want = kl.compute_loss_from_embeddings([query, *items], teacher) / 0.5**2  # it scales the loss as Hinton does
    assert distillation(scores / 0.5, teacher, DistilSettings(temperature=0.2)).item() == pytest.approx(want.item(), rel=1e-5)
    margin = MarginMSELoss(torch.nn.Identity())
    want = margin.compute_loss_from_embeddings([query, *items], teacher[:, :1] - teacher[:, 1:])
    got = distillation(scores, teacher, DistilSettings(loss="margin_mse", temperature=1.0))
    assert got.item() == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.parametrize("loss", ["kl", "margin_mse"])
def test_a_model_that_agrees_has_no_loss_and_extreme_scores_no_nan(loss: str) -> None:
    settings = DistilSettings(loss=loss, temperature=0.01)
    teacher = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, NAN], [NAN, NAN, NAN]])
    own = torch.nan_to_num(teacher) / 0.01
    assert distillation(own + 3.0, teacher, settings).item() == pytest.approx(0.0, abs=1e-5), "a shift of all scores is none"
    logits = torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, 0.0], [0.0, 1.0, 2.0]], requires_grad=True)
    far = distillation(logits, teacher, settings)
    far.backward()
    assert math.isfinite(far.item())
    assert far.item() > 10
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_no_rows_have_no_loss() -> None:
    assert distillation(torch.zeros(0, 3), torch.zeros(0, 3), DistilSettings()).item() == 0.0
