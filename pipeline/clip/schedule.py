"""The learning rate of contrastive training and of the miniature refiner."""

import math


def warm_up_cosine(step: int, steps: int, warm_up: int, peak: float) -> float:
    """Rate of the step after `step` of `steps` steps: linear up to `peak`, then cosine to zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return peak * 0.5 * (1 + math.cos(math.pi * done))
