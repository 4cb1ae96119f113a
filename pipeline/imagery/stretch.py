"""Pictures of more than 8 bits a band, which Pillow reads as one band or cuts to their high bits."""

import logging
import warnings
from typing import Any

import numpy as np

from pipeline.imagery.header import Header
from pipeline.imagery.orientation import upright


class BandsError(ValueError):
    """Bands whose colours the file does not name."""


DRIVERS = {"PNG": "PNG", "TIFF": "GTiff", "JPEG 2000": "JP2OpenJPEG"}


def read_stretched(data: bytes, header: Header) -> np.ndarray:
    """An encoded PNG, TIFF or JPEG 2000 of any depth, upright, as [H,W,3] uint8.

    All bands together are stretched linearly from their lowest value to their highest, so that colours stay;
    grey is repeated. Pixels that are transparent or of a no-data value are black and count for neither end;
    those without a number take the lowest value. Raises BandsError, and what rasterio raises on a broken
    file.
    """
    import rasterio

    if header.container not in DRIVERS or header.kind not in ("grey", "rgb"):
        bands = "1 band" if header.bands == 1 else f"{header.bands} bands"
        raise BandsError(f"{bands} of {header.depth} bits whose colours are not named")
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # what matters comes as an exception
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.MemoryFile(data) as memory:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            dataset = memory.open(driver=DRIVERS[header.container])
        with dataset:
            taken = [1, 2, 3] if header.kind == "rgb" else [1]
            values = dataset.read(taken)  # [bands,h,w]
            inside = dataset.read_masks(taken).max(axis=0) > 0
    stretched = _stretch(values, inside)
    return np.ascontiguousarray(upright(np.moveaxis(np.broadcast_to(stretched, (3, *inside.shape)), 0, -1),
                                        header.orientation))  # fmt: skip


def _stretch(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    known = np.isfinite(values) & inside
    chosen: Any = values[known]
    low, high = (float(chosen.min()), float(chosen.max())) if chosen.size else (0.0, 0.0)
    result = np.zeros(values.shape, np.uint8)
    for band, of_band in zip(values, result, strict=True):
        numbers = np.nan_to_num(band.astype(np.float64), nan=low, posinf=high, neginf=low)
        if high > low:
            of_band[:] = np.rint(np.clip((numbers - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)
        of_band[~inside] = 0
    return result
