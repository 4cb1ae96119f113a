"""What a written data set holds: class shares, the spread of its conditions, and a probe on colour alone.

The probe is a multinomial logistic regression on a pixel's three values. Where it does well, colour tells the
class and a segmenter has nothing to learn; the embedded world keeps it under 0.75 on each data set.
"""

from typing import Any

import numpy as np
import pandas as pd

from pipeline.scenes.dataset import IGNORE, Dataset, SourceImage
from pipeline.scenes.reading import read_image, read_label

PIXELS = 400  # sampled in each image


def sample_pixels(
    dataset: Dataset, images: list[SourceImage], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random labelled pixels of each image.

    Returns:
        values float32 (n, 3) in 0..1, class indices (n,), number of the image (n,).
    """
    coloured = isinstance(next(iter(dataset.codes)), tuple)
    values, classes, numbers = [], [], []
    for number, image in enumerate(images):
        assert image.label is not None
        pixels = read_image(image.image).reshape(-1, 3)
        indices = dataset.decode_label(read_label(image.label, coloured)).indices.ravel()
        labelled = np.flatnonzero(indices != IGNORE)
        if not labelled.size:
            continue
        chosen = np.random.default_rng([seed, number]).choice(labelled, PIXELS)
        values.append(pixels[chosen].astype(np.float32) / 255)
        classes.append(indices[chosen])
        numbers.append(np.full(PIXELS, number))
    return np.concatenate(values), np.concatenate(classes), np.concatenate(numbers)


def probe(
    training: tuple[np.ndarray, np.ndarray],
    tests: dict[str, tuple[np.ndarray, np.ndarray]],
    limit: int = 20000,
) -> dict[str, np.ndarray]:
    """Fit the colour probe on (values, classes) and say for each pixel of each test whether it is right."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values, classes = training
    step = max(1, len(values) // limit)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=10.0, max_iter=500)).fit(
        values[::step], classes[::step]
    )
    return {
        name: model.predict(test_values) == test_classes
        for name, (test_values, test_classes) in tests.items()
    }


def survey(
    dataset: Dataset, images: list[SourceImage], conditions: list[dict[str, Any]], seed: int = 0
) -> dict[str, Any]:
    """Summary of a data set of the embedded world.

    The probe is fitted on every second image of the training side, and tested on the others (`probe_oa`) and
    on the evaluation side (`probe_oa_evaluation`, with its spread over images).
    """
    sides = {side: [image for image in images if image.side == side] for side in ("training", "evaluation")}
    samples = {side: sample_pixels(dataset, chosen, seed) for side, chosen in sides.items()}
    values, classes, numbers = samples["training"]
    fitted = numbers % 2 == 0
    tests = {"training": (values[~fitted], classes[~fitted]), "evaluation": samples["evaluation"][:2]}
    right = probe((values[fitted], classes[fitted]), tests)
    by_image = pd.Series(right["evaluation"]).groupby(samples["evaluation"][2]).mean()
    shares = {
        side: {
            title: round(float((sample[1] == index).mean()), 4) for index, title in enumerate(dataset.classes)
        }
        for side, sample in samples.items()
    }
    table = pd.DataFrame(conditions)
    return {
        "images": {side: len(chosen) for side, chosen in sides.items()},
        "class_shares": shares,
        "probe_oa": round(float(right["training"].mean()), 4),
        "probe_oa_evaluation": round(float(right["evaluation"].mean()), 4),
        "probe_oa_spread": {
            name: round(float(by_image.quantile(q)), 4)
            for name, q in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9))
        }
        | {"std": round(float(by_image.std(ddof=0)), 4)},
        "conditions": {
            kind: {"count": len(rows), "strength": round(float(rows["strength"].mean()), 4)}
            for kind, rows in table.groupby("kind")
        },
    }
