"""An image and its label belong together pixel by pixel, or the pair is refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, from_origin

from pipeline.imagery.georeference import Georeference, disagreement
from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import IGNORE, SourceImage
from pipeline.scenes.own import Own
from pipeline.scenes.pairing import holds_a_label, open_pair
from pipeline.scenes.reading import open_image
from tests.scenes.own_files import BLUE, RED, own
from tests.scenes.test_reading import write_tiff

SIDE = 16
IDS: dict[str, Any] = {"classes": {"Ground": 0, "Roof": 1}}
TRUTH = np.zeros((SIDE, SIDE), np.uint8)
TRUTH[:5, :9] = 1
SHOWN = np.stack([TRUTH * 250, TRUTH * 0 + 10, TRUTH * 0 + 20], axis=-1)  # red where the label says roof
HERE = from_origin(500_000, 5_000_016, 1, 1)
GRID: dict[str, Any] = {"crs": "EPSG:32633", "transform": HERE}


def pair(tmp_path: Path, image: str, label: str) -> SourceImage:
    return SourceImage("u", "a", tmp_path / image, tmp_path / label, "training")


def read(data: Own, source: SourceImage) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and class indices."""
    with open_pair(data, source) as (picture, mask):
        values, outside = mask.rows(0, mask.height), mask.outside(0, mask.height)
        return picture.rows(0, picture.height), data.decode_label(values, outside).indices


def agree(data: Own, source: SourceImage) -> bool:
    pixels, indices = read(data, source)
    return bool(np.array_equal(pixels[..., 0] > 100, indices == 1))


@pytest.mark.parametrize("of_label", range(1, 9))
@pytest.mark.parametrize("of_image", range(1, 9))
def test_every_pair_of_orientations(tmp_path: Path, of_image: int, of_label: int) -> None:
    wide = np.pad(TRUTH, ((0, 0), (0, 8)))
    for name, pixels, orientation in (
        ("a.png", np.stack([wide * 250] * 3, axis=-1), of_image),
        ("a_mask.png", wide, of_label),
    ):
        # Pillow's own turning undone: the stored picture that is to be seen as `pixels`.
        back = {6: 8, 8: 6}.get(orientation, orientation)
        upright = Image.fromarray(pixels)
        exif = upright.getexif()
        exif[0x0112] = back
        stored = ImageOps.exif_transpose(upright)
        tag = Image.Exif()
        tag[0x0112] = orientation
        stored.save(tmp_path / name, exif=tag)
    assert agree(own(**IDS), pair(tmp_path, "a.png", "a_mask.png"))


def test_a_label_of_the_stored_picture_is_refused_with_the_cure(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 16)).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(np.ones((16, 32), np.uint8)).save(tmp_path / "a.png")
    for resize in (False, True):
        with pytest.raises(InputError, match=r"a\.png: expected .* 16 x 32 px, found 32 x 16; .*exiftool"):
            read(own(**IDS, resize_to_label=resize), pair(tmp_path, "a.jpg", "a.png"))


def test_resizing_never_swaps_sides(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    resizing = own(**IDS, resize_to_label=True)
    Image.new("L", (20, 4), 1).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="of another shape"):
        read(resizing, pair(tmp_path, "a.jpg", "a.png"))
    for width, height in ((15, 20), (30, 40), (39, 40)):
        Image.fromarray(np.ones((height, width), np.uint8)).save(tmp_path / "a.png")
        with pytest.raises(InputError, match="whose sides are swapped"):
            read(resizing, pair(tmp_path, "a.jpg", "a.png"))
    for width, height in ((20, 15), (20, 16), (36, 30)):
        Image.fromarray(np.ones((height, width), np.uint8)).save(tmp_path / "a.png")
        assert read(resizing, pair(tmp_path, "a.jpg", "a.png"))[1].shape == (height, width)


FLIPS = {
    "bottom-up": (np.s_[::-1], Affine(1, 0, 500_000, 0, 1, 5_000_000)),
    "mirrored": (np.s_[:, ::-1], Affine(-1, 0, 500_016, 0, -1, 5_000_016)),
    "both": (np.s_[::-1, ::-1], Affine(-1, 0, 500_016, 0, 1, 5_000_000)),
}


@pytest.mark.parametrize("which", ["image", "label"])
@pytest.mark.parametrize("flip", list(FLIPS))
def test_pictures_stored_in_another_order_are_read_north_up(tmp_path: Path, flip: str, which: str) -> None:
    order: Any
    order, transform = FLIPS[flip]
    flipped: dict[str, Any] = {"crs": "EPSG:32633", "transform": transform}
    write_tiff(tmp_path / "a.tif", SHOWN[order] if which == "image" else SHOWN,
               **flipped if which == "image" else GRID)  # fmt: skip
    write_tiff(tmp_path / "b.tif", TRUTH[order] if which == "label" else TRUTH,
               **flipped if which == "label" else GRID)  # fmt: skip
    source = pair(tmp_path, "a.tif", "b.tif")
    pixels, _ = read(own(**IDS), source)
    np.testing.assert_array_equal(pixels, SHOWN)
    assert agree(own(**IDS), source)
    with open_image(tmp_path / "a.tif") as raster:  # by rows as well
        np.testing.assert_array_equal(raster.rows(3, 7), SHOWN[3:7])
    Image.fromarray(SHOWN).save(tmp_path / "plain.png")
    Image.fromarray(TRUTH).save(tmp_path / "plain_mask.png")
    other = ("a.tif", "plain_mask.png") if which == "image" else ("plain.png", "b.tif")
    with pytest.raises(InputError, match=r"stored bottom-up or mirrored, and .*plain.* has none"):
        read(own(**IDS), pair(tmp_path, *other))


def test_ground_must_agree_to_half_a_pixel(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", SHOWN, **GRID)
    for shift, fits in ((0.0, True), (0.5, True), (-0.5, True), (0.6, False), (1.0, False), (4e6, False)):
        moved = HERE @ Affine.translation(0, shift)
        write_tiff(tmp_path / "b.tif", TRUTH, crs="EPSG:32633", transform=moved)
        if fits:
            assert agree(own(**IDS), pair(tmp_path, "a.tif", "b.tif"))
        else:
            with pytest.raises(InputError, match=r"b\.tif: expected the ground of its image .*a\.tif"):
                read(own(**IDS), pair(tmp_path, "a.tif", "b.tif"))
    write_tiff(tmp_path / "b.tif", TRUTH, crs="EPSG:32633", transform=HERE @ Affine.scale(1.1))
    with pytest.raises(InputError, match="expected the ground"):
        read(own(**IDS), pair(tmp_path, "a.tif", "b.tif"))


def test_what_lacks_a_georeference_is_paired_by_place(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", SHOWN, **GRID)
    nothing: dict[str, Any] = {}
    for options in (nothing, {"crs": "EPSG:4326"}):
        write_tiff(tmp_path / "b.tif", TRUTH, **options)
        assert agree(own(**IDS), pair(tmp_path, "a.tif", "b.tif"))
    write_tiff(tmp_path / "b.tif", TRUTH, transform=HERE)  # a transform alone is compared with the other's
    assert agree(own(**IDS), pair(tmp_path, "a.tif", "b.tif"))


def test_coordinate_systems(tmp_path: Path) -> None:
    from rasterio.crs import CRS
    from rasterio.warp import transform

    utm, mercator, degrees = (CRS.from_epsg(code) for code in (32633, 3857, 4326))
    here = Georeference(HERE, utm)
    assert disagreement(here, (16, 16), Georeference(HERE, CRS.from_wkt(utm.to_wkt())), (16, 16)) is None
    assert disagreement(here, (16, 16), Georeference(HERE, degrees), (16, 16))  # off the globe
    # the same ground in another projection: a transform fitted to the corners, as gdalwarp keeps it
    corners = [(x, y) for x in (0, SIDE) for y in (0, SIDE)]
    xs, ys = transform(utm, mercator, *zip(*(HERE @ corner for corner in corners), strict=True))
    rows = np.array([[x, y, 1] for x, y in corners])
    a, b, c = np.linalg.lstsq(rows, np.array(xs), rcond=None)[0]
    d, e, f = np.linalg.lstsq(rows, np.array(ys), rcond=None)[0]
    assert disagreement(here, (16, 16), Georeference(Affine(a, b, c, d, e, f), mercator), (16, 16)) is None
    nowhere = Georeference(Affine(1, 0, math.inf, 0, -1, 0), utm)
    assert disagreement(here, (16, 16), nowhere, (16, 16))


def test_sizes_of_other_resolutions_are_compared_by_their_corners(tmp_path: Path) -> None:
    fine = Georeference(from_origin(0, 16, 0.5, 0.5))
    assert disagreement(fine, (32, 32), Georeference(from_origin(0, 16, 1, 1)), (16, 16)) is None
    assert disagreement(fine, (32, 32), Georeference(from_origin(0.4, 16, 1, 1)), (16, 16)) is None
    assert disagreement(fine, (32, 32), Georeference(from_origin(0.6, 16, 1, 1)), (16, 16))


def test_world_files_and_control_points(tmp_path: Path) -> None:
    Image.fromarray(SHOWN).save(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text("1\n0\n0\n-1\n500000.5\n5000015.5\n")
    write_tiff(tmp_path / "b.tif", TRUTH, **GRID)
    assert agree(own(**IDS), pair(tmp_path, "a.png", "b.tif"))
    (tmp_path / "a.pgw").write_text("1\n0\n0\n-1\n500020.5\n5000015.5\n")
    with pytest.raises(InputError, match="20 px apart"):
        read(own(**IDS), pair(tmp_path, "a.png", "b.tif"))
    (tmp_path / "a.pgw").write_text("1 0 0")
    with pytest.raises(InputError, match=r"a\.pgw: expected a world file, which is six numbers"):
        read(own(**IDS), pair(tmp_path, "a.png", "b.tif"))
    points = [
        GroundControlPoint(row, column, *(HERE @ (column, row)))
        for row, column in ((0, 0), (0, SIDE), (SIDE, 0), (SIDE, SIDE))
    ]
    for shift, fits in ((0, True), (5, False)):
        moved = [GroundControlPoint(p.row, p.col, p.x + shift, p.y) for p in points]
        write_tiff(tmp_path / "c.tif", SHOWN, gcps=moved, crs="EPSG:32633")
        if fits:
            assert agree(own(**IDS), pair(tmp_path, "c.tif", "b.tif"))
        else:
            with pytest.raises(InputError, match="5 px apart"):
                read(own(**IDS), pair(tmp_path, "c.tif", "b.tif"))


def test_a_hair_of_shear_is_no_rotation(tmp_path: Path) -> None:
    bottom_up = Affine(1, 1e-9, 500_000, 1e-9, 1, 5_000_000)
    write_tiff(tmp_path / "a.tif", SHOWN[::-1], crs="EPSG:32633", transform=bottom_up)
    write_tiff(tmp_path / "b.tif", TRUTH, **GRID)
    assert agree(own(**IDS), pair(tmp_path, "a.tif", "b.tif"))
    turned = HERE @ Affine.translation(8, 8) @ Affine.rotation(30) @ Affine.translation(-8, -8)
    for name, pixels in (("c.tif", SHOWN), ("d.tif", TRUTH)):
        write_tiff(tmp_path / name, pixels, crs="EPSG:32633", transform=turned)
    assert agree(own(**IDS), pair(tmp_path, "c.tif", "d.tif"))
    mirrored = turned @ Affine(1, 0, 0, 0, -1, SIDE)
    write_tiff(tmp_path / "c.tif", SHOWN[::-1], crs="EPSG:32633", transform=mirrored)
    assert agree(own(**IDS), pair(tmp_path, "c.tif", "d.tif"))


def test_auxiliary_files_and_projections(tmp_path: Path) -> None:
    import rasterio
    from rasterio.crs import CRS

    write_tiff(tmp_path / "a.tif", SHOWN, **GRID)
    for shift, fits in ((0, True), (7, False)):
        with rasterio.open(
            tmp_path / "b.png", "w", driver="PNG", dtype="uint8", count=1, height=SIDE, width=SIDE,
            crs="EPSG:32633", transform=HERE @ Affine.translation(shift, 0),
        ) as file:  # fmt: skip
            file.write(TRUTH, 1)
        assert (tmp_path / "b.png.aux.xml").is_file()
        if fits:
            assert agree(own(**IDS), pair(tmp_path, "a.tif", "b.png"))
        else:
            with pytest.raises(InputError, match="7 px apart"):
                read(own(**IDS), pair(tmp_path, "a.tif", "b.png"))
    (tmp_path / "b.png.aux.xml").write_text("<PAMDataset><broken")
    (tmp_path / "b.pgw").write_text("1 0 0 -1 500000.5 5000015.5")
    (tmp_path / "b.prj").write_text(CRS.from_epsg(32634).to_wkt())
    with pytest.raises(InputError, match="expected the ground"):
        read(own(**IDS), pair(tmp_path, "a.tif", "b.png"))
    (tmp_path / "b.prj").write_text(CRS.from_epsg(32633).to_wkt())
    assert agree(own(**IDS), pair(tmp_path, "a.tif", "b.png"))


def test_a_tag_and_a_georeference_are_one_too_many(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(SHOWN).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.jgw").write_text("1 0 0 -1 0 0")
    with (
        pytest.raises(InputError, match=r"expected an orientation tag or a georeference, found both"),
        open_image(tmp_path / "a.jpg"),
    ):
        pass


def write_transparent_labels(folder: Path, hole: np.ndarray) -> dict[str, bool]:
    """Labels with TRUTH in every way of saying that pixels are none; whether they hold colours."""
    colours = np.where(TRUTH[..., None] == 1, np.array(RED, np.uint8), np.array(BLUE, np.uint8))
    alpha = np.where(hole, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([colours, alpha])).save(folder / "rgba.png")
    write_tiff(folder / "alpha.tif", np.dstack([colours, alpha]), photometric="RGB", ALPHA="YES")
    write_tiff(folder / "nodata.tif", np.where(hole[..., None], np.uint8(0), colours), nodata=0)
    Image.fromarray(np.dstack([TRUTH, alpha]), "LA").save(folder / "la.png")
    write_tiff(folder / "ids.tif", np.where(hole, np.uint8(7), TRUTH), nodata=7)
    write_tiff(folder / "two.tif", np.dstack([TRUTH, alpha]), photometric="MINISBLACK", ALPHA="YES")
    Image.fromarray(np.where(hole, np.uint8(7), TRUTH)).save(folder / "key.png", transparency=7)
    palette = Image.fromarray(np.where(hole, np.uint8(2), TRUTH), "P")
    palette.putpalette([*BLUE, *RED, 9, 9, 9])
    palette.save(folder / "palette.png", transparency=2)
    return {
        "rgba.png": True, "alpha.tif": True, "nodata.tif": True, "palette.png": True,
        "la.png": False, "ids.tif": False, "two.tif": False, "key.png": False,
    }  # fmt: skip


def test_what_is_transparent_or_no_data_in_a_label_is_ignored(tmp_path: Path) -> None:
    hole = np.zeros((SIDE, SIDE), bool)
    hole[2:9, 4:12] = True
    expected = np.where(hole, IGNORE, TRUTH)
    Image.fromarray(SHOWN).save(tmp_path / "a.png")
    coloured = own(classes={"Ground": list(BLUE), "Roof": list(RED)})
    for name, has_colours in write_transparent_labels(tmp_path, hole).items():
        data = coloured if has_colours else own(**IDS)
        with open_pair(data, pair(tmp_path, "a.png", name)) as (_, mask):
            decoded = data.decode_label(mask.rows(0, SIDE), mask.outside(0, SIDE))
            np.testing.assert_array_equal(decoded.indices, expected, err_msg=name)
            assert decoded.unknown == 0, name
            part = mask.outside(3, 5)
            assert part is not None
            np.testing.assert_array_equal(part, hole[3:5])


def test_infrared_is_no_alpha_whatever_the_file_calls_it(tmp_path: Path) -> None:
    infrared = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)
    infrared[0, 0] = 0
    write_tiff(tmp_path / "a.tif", np.dstack([SHOWN, infrared]))  # GDAL calls the fourth of four bytes alpha
    with (
        pytest.raises(InputError, match="found 4 bands of uint8; name the three `bands`"),
        open_image(tmp_path / "a.tif"),
    ):
        pass
    with open_image(tmp_path / "a.tif", (1, 2, 3)) as raster:
        assert raster.outside(0, SIDE) is None
    write_tiff(tmp_path / "a.tif", np.dstack([SHOWN, infrared * 0]))  # over water
    with open_image(tmp_path / "a.tif", (1, 2, 3)) as raster:
        assert raster.outside(0, SIDE) is None
    mask = np.where(infrared > 100, 255, 0).astype(np.uint8)
    write_tiff(tmp_path / "b.tif", np.dstack([SHOWN, mask]))
    for bands in ((), (1, 2, 3)):
        with open_image(tmp_path / "b.tif", bands) as raster:
            np.testing.assert_array_equal(raster.outside(0, SIDE), mask == 0)
            np.testing.assert_array_equal(raster.rows(0, SIDE), SHOWN)
    with open_image(tmp_path / "b.tif", (4, 1, 2)) as raster:  # taken as data
        assert raster.outside(0, SIDE) is None
    with open_image(tmp_path / "b.tif", (1, 2, 3), alpha=False) as raster:
        assert raster.outside(0, SIDE) is None


def test_an_image_that_is_its_label(tmp_path: Path) -> None:
    data = own(classes={"Roof": [255, 255, 255], "Ground": [0, 0, 0]})
    painted = np.repeat(TRUTH[..., None] * np.uint8(255), 3, axis=-1)
    noise = np.random.default_rng(0).integers(0, 2, (SIDE, SIDE, 1)).astype(np.uint8)
    for name, pixels, expected in (
        ("label", painted, True),
        ("empty", np.zeros((SIDE, SIDE, 3), np.uint8), False),  # of one colour: shows nothing at all
        ("clouds", np.repeat(noise * np.uint8(255), 3, axis=-1), False),  # of a label's colours by chance
        ("photo", SHOWN, False),
    ):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        with open_image(tmp_path / f"{name}.png") as raster:
            assert holds_a_label(data, raster, np.where(TRUTH == 1, 0, 1)) == expected
