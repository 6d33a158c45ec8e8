"""A teacher's scores as a target: the loss between its opinion of a query's list and the model's.

B queries, L items of a list: the positive first, then the query's mined negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.objective.losses import weighted_mean
from training.settings import DistilSettings


def distillation(
    logits_BL: Tensor,
    teacher_BL: Tensor,
    settings: DistilSettings,
    *,
    weights_B: Tensor | None = None,
    denominator: Tensor | None = None,
) -> Tensor:
    """Weighted mean over queries of how far the model is from the teacher; settings.weight is not applied.

    With t = teacher_BL / settings.temperature and s = logits_BL, over the items that the teacher has read:

        kl           sum_l softmax(t)_l * (log softmax(t)_l - log softmax(s)_l)
                     (Hinton 2015, arXiv 1503.02531; sentence-transformers' DistillKLDivLoss without its factor temperature ^ 2)
        margin_mse   mean over negatives n of ((s_p - s_n) - (t_p - t_n)) ^ 2
                     (Hofstätter 2020, arXiv 2010.02666, eq. 3; sentence-transformers' MarginMSELoss)

    Args:
        logits_BL: the model's scores, divided by its own temperature; what stands where the teacher has read nothing has no
            effect.
        teacher_BL: as the teacher gave them; NaN: it has not read the pair. No gradient flows.
        weights_B, denominator: as in `training.objective.losses.info_nce`.

    Returns:
        Scalar with gradient, of the type of `logits_BL`. A query of whose list fewer than two items are read, or for margin_mse
        not the positive, has loss 0 and still counts in the mean.
    """
    read_BL = ~torch.isnan(teacher_BL)
    target_BL = torch.where(read_BL, teacher_BL, 0.0).to(logits_BL.dtype) / settings.temperature
    if settings.loss == "kl":
        read_BL = read_BL & (read_BL.sum(1, keepdim=True) > 1)
        # of the lowest finite number, not of -inf: the softmax of a list of which nothing is read would be NaN
        lowest = torch.finfo(logits_BL.dtype).min
        wanted_BL = target_BL.masked_fill(~read_BL, lowest).log_softmax(1)
        own_BL = logits_BL.masked_fill(~read_BL, lowest).log_softmax(1)
        terms_BL = wanted_BL.exp() * (wanted_BL - own_BL)
        losses_B = terms_BL.masked_fill(~read_BL, 0.0).sum(1)
    else:
        negative_BL = read_BL & read_BL[:, :1]
        negative_BL[:, 0] = False
        error_BL = (logits_BL[:, :1] - logits_BL) - (target_BL[:, :1] - target_BL)
        squares_BL = error_BL.square().masked_fill(~negative_BL, 0.0)
        losses_B = squares_BL.sum(1) / negative_BL.sum(1).clamp(min=1)
    return weighted_mean(losses_B, weights_B, denominator)
