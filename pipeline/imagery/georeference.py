"""Where on the ground the pixels of a picture lie, as its file or the world file beside it says."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from affine import Affine

TOLERANCE = 0.5 + 1e-6  # pixels: the two conventions of what a coordinate belongs to differ by half a pixel
WORLD_LINES = 6


class Georeference(NamedTuple):
    """transform: from (column, row) of pixel corners to coordinates; crs: their system (rasterio's CRS), None
    where it is not said."""

    transform: "Affine"
    crs: Any = None


def of_dataset(dataset: Any) -> Georeference | None:
    """What an open rasterio dataset says; None where it says nothing."""
    if not dataset.transform.is_identity:
        return Georeference(dataset.transform, dataset.crs)
    points, crs = dataset.gcps
    if len(points) >= 3:
        from rasterio.transform import from_gcps

        return Georeference(from_gcps(points), crs)
    return None


def of_world_file(text: str) -> Georeference:
    """ESRI's world file: six numbers, the last two the centre of the first pixel. ValueError for another."""
    from affine import Affine

    numbers = [float(word.replace(",", ".")) for word in text.split()]
    if len(numbers) != WORLD_LINES or not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected six numbers, found {len(numbers)}")
    a, d, b, e, c, f = numbers
    return Georeference(Affine(a, b, c, d, e, f) * Affine.translation(-0.5, -0.5))


def orientation(georeference: Georeference) -> int:
    """How a picture must be turned so that north is up and east is right (as
    `pipeline.imagery.orientation`): 2, 3 and 4 for one stored from right to left or bottom-up; 1 for one that
    lies right, and for one that is turned by another angle."""
    transform = georeference.transform
    if transform.b or transform.d:
        return 1
    return {(False, False): 1, (True, False): 2, (True, True): 3, (False, True): 4}[
        (transform.a < 0, transform.e > 0)
    ]


def turned(georeference: Georeference, width: int, height: int) -> Georeference:
    """The georeference of the picture after it was turned by its `orientation`."""
    from affine import Affine

    way = orientation(georeference)
    mirror = Affine.identity()
    if way in (2, 3):
        mirror *= Affine(-1, 0, width, 0, 1, 0)
    if way in (3, 4):
        mirror *= Affine(1, 0, 0, 0, -1, height)
    return georeference._replace(transform=georeference.transform * mirror)


def disagreement(
    one: Georeference, size: tuple[int, int], other: Georeference, other_size: tuple[int, int]
) -> str | None:
    """Why two pictures of these widths and heights do not show the same ground, None where they do: each
    corner of the other must lie within half a pixel (of the coarser one) of this one's."""
    width, height = size
    corners = [(x, y) for x in (0, 1) for y in (0, 1)]
    points = [other.transform * (x * other_size[0], y * other_size[1]) for x, y in corners]
    if one.crs and other.crs and one.crs != other.crs:
        points = _in_system(points, other.crs, one.crs)
    try:
        places = [~one.transform * point for point in points]
    except Exception:  # affine's own class for a transform that maps all to a line
        return "one of their transforms is not invertible"
    shifts = [
        (abs(place[0] - x * width), abs(place[1] - y * height))
        for place, (x, y) in zip(places, corners, strict=True)
    ]
    if not all(math.isfinite(shift) for pair in shifts for shift in pair):
        return f"their coordinate systems, {one.crs} and {other.crs}, cannot be compared"
    limits = (TOLERANCE * max(1.0, width / other_size[0]), TOLERANCE * max(1.0, height / other_size[1]))
    if all(shift <= limit for pair in shifts for shift, limit in zip(pair, limits, strict=True)):
        return None
    worst = max(max(pair) for pair in shifts)
    return f"their corners are up to {worst:.4g} px apart"


def _in_system(points: list[tuple[float, float]], source: Any, target: Any) -> list[tuple[float, float]]:
    from rasterio.warp import transform

    try:
        xs, ys = transform(source, target, [x for x, _ in points], [y for _, y in points])
    except Exception:  # GDAL's and PROJ's, of several kinds
        return [(math.nan, math.nan)] * len(points)
    return list(zip(xs, ys, strict=True))
