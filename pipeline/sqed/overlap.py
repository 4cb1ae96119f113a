"""Near-duplicates between RS-SQED's patches and the images of the collected pairs.

`collect_captions` keeps out images that resemble a whole image of the evaluation side; a patch cut from one
may still resemble a caption image, which CLIP-RS was then trained on.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.captions.pictures import perceptual_hash
from pipeline.captions.shards import Pairs
from pipeline.runtime.progress import progress

COLUMNS = ["patch_id", "kind", "key", "distance"]


def find_overlap(
    patch_ids: Iterable[str], paths: Iterable[Path], pairs: Mapping[str, Pairs], distance: int
) -> pd.DataFrame:
    """One row for each patch and caption image whose perceptual hashes differ in fewer than `distance` of 64
    bits: patch_id, kind (of the pairs: clean or rough), key, distance (bits); sorted by patch, kind and key.

    paths: the patches' pictures; pairs: by kind.
    """
    hashes = {kind: some.hashes() for kind, some in pairs.items()}
    rows = []
    for patch_id, path in progress(
        list(zip(patch_ids, paths, strict=True)), description="overlap with the captions", unit="patch"
    ):
        with Image.open(path) as image:
            value = np.uint64(perceptual_hash(image))
        for kind, others in hashes.items():
            bits = np.bitwise_count(others ^ value)  # of ten million others: some 20 ms
            for place in np.flatnonzero(bits < distance).tolist():
                rows.append((patch_id, kind, pairs[kind].keys(place, place + 1)[0], int(bits[place])))
    return pd.DataFrame(sorted(rows), columns=COLUMNS)
