"""What is kept of each patch and method: the columns of its table, see `pipeline.sqed.labels`, and the bins
of the histogram `confidences` of the pixels' highest softmax."""

import numpy as np

LABEL_COLUMNS = (
    "patch_id", "oa", "pixels", "confusion", "confidence", "entropy", "agreement", "confidences", "feature",
    "deviation",
)  # fmt: skip
# Evenly spaced in -log2(1 - confidence), since most pixels of a trained model lie close to 1.
BINS_PER_BIT = 6
CONFIDENCE_BINS = 128
CONFIDENCE_EDGES = np.append(1 - 2.0 ** (-np.arange(CONFIDENCE_BINS) / BINS_PER_BIT), 1.0)
