"""OA from the feature vectors of patches: an epsilon-SVR with RBF kernel for each segmentation method.

Mittal et al. (IEEE TIP 21(12), 2012) regress so, with C = 1024 and gamma = 0.05 on human opinion scores; for
OA both and epsilon are chosen by cross-validation. Its folds hold whole source units, since patches of one
unit resemble each other.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from pipeline.baselines.material import Material, Result, Tools
from pipeline.baselines.settings import RegressionSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.processes import run_all

CACHE = 1000  # MB, of libsvm's for kernel values


class Fitted(NamedTuple):
    """predicted: OA [M] float64 of the test patches. chosen: c, gamma, epsilon, deviation (root of the mean
    squared error in cross-validation), folds and patches (labelled ones); where there was nothing to choose,
    constant and patches."""

    predicted: np.ndarray
    chosen: dict[str, float]


class Regression(NamedTuple):
    """What the regressions of all methods share. train, test: features [N,D], [M,D]; accuracy: [N, methods]
    in 0-1, NaN where there is no label; units: [N], those of the training patches; scaling: of each feature
    to -1 to 1 (range) or to mean 0 and variance 1 (variance), over the training patches at hand."""

    train: np.ndarray
    test: np.ndarray
    accuracy: np.ndarray
    units: np.ndarray
    scaling: Literal["range", "variance"]
    methods: list[str]
    settings: RegressionSettings
    folder: Path

    def file(self, method: str) -> Path:
        return self.folder / f"{method}.json"

    def keep(self, method: str) -> None:
        """Fit one method and write its file."""
        predicted, chosen = self.fit(method)
        write_json(self.file(method), {"predicted": predicted.tolist(), "chosen": chosen})

    def fit(self, method: str) -> Fitted:
        """Fit one method on its labelled patches.

        There are at most as many folds as units. Patches that all have the same OA give that OA for every
        test patch, and nothing is chosen. Raises InputError where labelled patches are of fewer than two
        units.
        """
        from sklearn.model_selection import GridSearchCV, GroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import MinMaxScaler, StandardScaler
        from sklearn.svm import SVR

        accuracy = self.accuracy[:, self.methods.index(method)]
        known = np.isfinite(accuracy)
        x, y, units = self.train[known], accuracy[known], self.units[known]
        if len(y) and (y == y[0]).all():
            return Fitted(np.full(len(self.test), y[0]), {"constant": y[0], "patches": len(y)})
        folds = min(self.settings.folds, len(set(units)))
        if folds < 2:
            raise InputError(
                f"{method}: expected labelled training patches of at least two source units, found "
                f"{len(y)} of {len(set(units))}; label more of them or leave the method out"
            )
        scaler = MinMaxScaler((-1, 1)) if self.scaling == "range" else StandardScaler()
        grid: dict[str, Any] = {
            "svr__C": self.settings.c,
            "svr__gamma": self.settings.gamma,
            "svr__epsilon": self.settings.epsilon,
        }
        search = GridSearchCV(
            make_pipeline(scaler, SVR(cache_size=CACHE)),
            grid,
            scoring="neg_mean_squared_error",
            cv=GroupKFold(folds),
            error_score="raise",
        ).fit(x, y, groups=units)
        chosen = {name.removeprefix("svr__").lower(): value for name, value in search.best_params_.items()}
        chosen |= {"deviation": float(np.sqrt(-search.best_score_)), "folds": folds, "patches": len(y)}
        return Fitted(search.predict(self.test), chosen)


def regress(
    title: str,
    train: np.ndarray,
    test: np.ndarray,
    scaling: Literal["range", "variance"],
    material: Material,
    settings: RegressionSettings,
    tools: Tools,
) -> Result:
    """Predict the test patches, one method after another or in `tools.workers` processes.

    What is chosen is said for each method, and the predictions are kept in the checkpoint's folder, where a
    stopped run goes on; see `Regression` for the arguments, its `fit` for the rest.
    """
    units = (material.train["dataset"] + "/" + material.train["unit"]).to_numpy(str)
    with tools.checkpoint(settings=settings.model_dump(), work="regression") as checkpoint:
        regression = Regression(
            train, test, material.accuracy(), units, scaling, material.methods, settings, checkpoint.folder
        )
        missing = [method for method in material.methods if not regression.file(method).is_file()]
        run_all(regression.keep, missing, tools.workers, title, "method")
        found = {method: read_json(regression.file(method)) for method in material.methods}
        for method, one in found.items():
            chosen = ", ".join(f"{name} {value:.4g}" for name, value in one["chosen"].items())
            checkpoint.say(f"{method}: {chosen}")
    values = np.stack([one["predicted"] for one in found.values()], axis=1)
    return Result({title: values[None]})
