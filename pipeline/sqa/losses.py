"""RS-SQA's loss (section 3.2.5, Eq. 10-12)."""

import torch.nn.functional as F
from torch import Tensor


def divergence(true: Tensor, predicted: Tensor, temperature: float) -> Tensor:
    """KL(P||Q) (Eq. 11), P and Q the softmax over the batch of true and predicted scores [B] / temperature.

    The paper does not say how scores become distributions; softmax over the batch is our reading. With
    temperature 1 the softmax over scores in 0-1 is nearly flat and the term nearly without effect.
    """
    log_p = F.log_softmax(true / temperature, dim=0)
    log_q = F.log_softmax(predicted / temperature, dim=0)
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True)


def quality_loss(true: Tensor, predicted: Tensor, alpha: float, temperature: float) -> Tensor:
    """MSE + alpha KL (Eq. 12) of scores [B] in 0-1."""
    loss = F.mse_loss(predicted, true)
    if alpha:  # without the term its gradient need not be computed
        loss = loss + alpha * divergence(true, predicted, temperature)
    return loss
