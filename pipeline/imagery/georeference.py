"""Where on the ground the pixels of a picture lie, as its file or the world file beside it says."""

import math
import xml.etree.ElementTree as ElementTree
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


def of_world_file(text: str, projection: str = "") -> Georeference:
    """ESRI's world file: six numbers, the last two the centre of the first pixel. projection: the text
    of the .prj beside it. ValueError for another."""
    from affine import Affine

    numbers = [float(word.replace(",", ".")) for word in text.split()]
    if len(numbers) != WORLD_LINES or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{len(numbers)} numbers: {' '.join(text.split())[:80]}")
    a, d, b, e, c, f = numbers
    return Georeference(Affine(a, b, c, d, e, f) @ Affine.translation(-0.5, -0.5), _system(projection))


def of_auxiliary_file(text: str) -> Georeference | None:
    """GDAL's NAME.aux.xml; None where it gives no transform. ValueError for a broken one."""
    from affine import Affine

    if "<!ENTITY" in text:
        raise ValueError("entities are declared")
    try:
        tree = ElementTree.fromstring(text)
        numbers = tree.findtext("GeoTransform")
        if not numbers:
            return None
        transform = Affine.from_gdal(*map(float, numbers.split(",")))
    except (ElementTree.ParseError, TypeError) as error:
        raise ValueError(error) from None
    return Georeference(transform, _system(tree.findtext("SRS") or ""))


def _is_local(crs: Any) -> bool:
    return not crs.is_geographic and not crs.is_projected


def _system(text: str) -> Any:
    """rasterio's CRS of a text; None where there is none or nobody knows it."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return CRS.from_wkt(text) if text.strip() else None
    except CRSError:
        return None


def orientation(georeference: Georeference, width: int, height: int) -> int:
    """How a picture of this size must be turned so that north is up and east is right (as
    `pipeline.imagery.orientation`): 2, 3 and 4 for one stored from right to left or bottom-up, 1 for one that
    lies right. One that is turned by another angle stays so, but is mirrored back (4) where it is mirrored.
    """
    transform = georeference.transform
    if abs(transform.b) * height > abs(transform.a) / 2 or abs(transform.d) * width > abs(transform.e) / 2:
        return 4 if transform.determinant > 0 else 1
    return {(False, False): 1, (True, False): 2, (True, True): 3, (False, True): 4}[
        (transform.a < 0, transform.e > 0)
    ]


def turned(georeference: Georeference, width: int, height: int) -> Georeference:
    """The georeference of the picture after it was turned by its `orientation`."""
    from affine import Affine

    way = orientation(georeference, width, height)
    mirror = Affine.identity()
    if way in (2, 3):
        mirror @= Affine(-1, 0, width, 0, 1, 0)
    if way in (3, 4):
        mirror @= Affine(1, 0, 0, 0, -1, height)
    return georeference._replace(transform=georeference.transform @ mirror)


def disagreement(
    one: Georeference, size: tuple[int, int], other: Georeference, other_size: tuple[int, int]
) -> str | None:
    """Why two pictures of these widths and heights do not show the same ground, None where they do: each
    corner of the other must lie within half a pixel (of the coarser one) of this one's."""
    width, height = size
    corners = [(x, y) for x in (0, 1) for y in (0, 1)]
    points = [other.transform @ (x * other_size[0], y * other_size[1]) for x, y in corners]
    incomparable = False
    if one.crs and other.crs and one.crs != other.crs:
        projected = _in_system(points, other.crs, one.crs)
        incomparable = not all(math.isfinite(value) for point in projected for value in point)
        if incomparable and not any(map(_is_local, (one.crs, other.crs))):
            return f"their coordinate systems, {one.crs} and {other.crs}, cannot be compared"
        points = points if incomparable else projected  # in a local one equal numbers are equal places
    try:
        places = [~one.transform @ point for point in points]
    except Exception:  # affine's own class for a transform that maps all to a line
        return "one of their transforms is not invertible"
    shifts = [
        (abs(place[0] - x * width), abs(place[1] - y * height))
        for place, (x, y) in zip(places, corners, strict=True)
    ]
    limits = (TOLERANCE * max(1.0, width / other_size[0]), TOLERANCE * max(1.0, height / other_size[1]))
    if all(shift <= limit for pair in shifts for shift, limit in zip(pair, limits, strict=True)):
        return None
    if incomparable:
        return f"their coordinate systems, {one.crs} and {other.crs}, cannot be compared"
    worst = max(max(pair) for pair in shifts)
    return f"their corners are up to {worst:.4g} px apart"


def _in_system(points: list[tuple[float, float]], source: Any, target: Any) -> list[tuple[float, float]]:
    from rasterio.warp import transform

    try:
        xs, ys = transform(source, target, [x for x, _ in points], [y for _, y in points])
    except Exception:  # GDAL's and PROJ's, of several kinds
        return [(math.nan, math.nan)] * len(points)
    return list(zip(xs, ys, strict=True))
