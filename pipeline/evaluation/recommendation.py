"""How well following the highest predicted score does (section 4.5, Eq. 18).

All functions take true and predicted scores [N, methods] and return one value per patch [N]; their mean over
patches is the table's figure. Several methods may share the highest predicted score: Eq. 18 wants all of them
among the best.
"""

import numpy as np


def hits_at_1(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """1 where the methods with the highest prediction lie within those with the highest accuracy, else 0.

    (The paper says "proper subset", which would count every single right answer as wrong; Eq. 18 has the
    plain subset.)
    """
    return _within(true.max(axis=1, keepdims=True), true, predicted)


def hits_at_3(true: np.ndarray, predicted: np.ndarray) -> np.ndarray | None:
    """1 where the recommended methods are among the true top three, ties at the third place counted in.

    None with three methods or fewer, when nothing can miss.
    """
    if true.shape[1] <= 3:
        return None
    third = np.partition(true, -3, axis=1)[:, -3:-2]
    return _within(third, true, predicted)


def regret(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Overall accuracy lost against the best method by taking the recommended one (mean over tied ones)."""
    top = predicted == predicted.max(axis=1, keepdims=True)
    recommended = np.where(top, true, 0).sum(axis=1) / top.sum(axis=1)
    return true.max(axis=1) - recommended


def random_choice(true: np.ndarray) -> dict[str, np.ndarray]:
    """The expectation of all three (P@3 where it is defined), when one method is drawn uniformly."""
    expected = {
        "P@1": (true == true.max(axis=1, keepdims=True)).mean(axis=1),
        "regret": true.max(axis=1) - true.mean(axis=1),
    }
    if true.shape[1] > 3:
        expected["P@3"] = (true >= np.partition(true, -3, axis=1)[:, -3:-2]).mean(axis=1)
    return expected


def _within(least: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    top = predicted == predicted.max(axis=1, keepdims=True)
    return (~top | (true >= least)).all(axis=1).astype(float)
