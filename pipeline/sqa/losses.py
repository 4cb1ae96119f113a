"""RS-SQA's loss (section 3.2.5, Eq. 10-12)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.sqa.settings import ModelSettings

TINY = 1e-6  # keeps the logarithm of an accuracy of 0 finite


def divergence(true: Tensor, predicted: Tensor, settings: ModelSettings) -> Tensor:
    """KL(P||Q) (Eq. 11), P and Q made of the true and the predicted scores [B] in 0-1 of a batch.

    The paper does not say how scores become distributions. `softmax`: over the batch, of scores /
    temperature (with temperature 1 it is nearly flat, and the term nearly without effect). `share`: each
    score as a share of their sum.
    """
    if settings.distribution == "softmax":
        log_p = F.log_softmax(true / settings.temperature, dim=0)
        log_q = F.log_softmax(predicted / settings.temperature, dim=0)
    else:
        log_p, log_q = (torch.log((scores + TINY) / (scores + TINY).sum()) for scores in (true, predicted))
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True)


def quality_loss(true: Tensor, predicted: Tensor, settings: ModelSettings) -> Tensor:
    """MSE + alpha KL (Eq. 12) of scores [B] in 0-1; `settings.mse` weighs the first term."""
    loss = settings.mse * F.mse_loss(predicted, true)
    if settings.alpha:  # without the term its gradient need not be computed
        loss = loss + settings.alpha * divergence(true, predicted, settings)
    return loss
