"""Pixels as other libraries wrote them, from folders and zips, by rows and whole; and broken files."""

import random
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps

from pipeline.runtime.errors import InputError
from pipeline.scenes import rasters
from pipeline.scenes.reading import facts, open_image, open_label, read_image, read_label, size

WIDTH, HEIGHT = 120, 96
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
IDS = RNG.integers(0, 8, (HEIGHT, WIDTH), np.uint8)
TIFFS: dict[str, dict[str, Any]] = {
    "strips": {},
    "pixel": {"interleave": "pixel"},
    "lzw": {"interleave": "pixel", "compress": "lzw", "predictor": 2},
    "one_strip": {"interleave": "pixel", "compress": "deflate", "blockysize": HEIGHT},
    "tiles": {
        "interleave": "pixel",
        "compress": "deflate",
        "tiled": True,
        "blockxsize": 32,
        "blockysize": 16,
    },
    "planes": {"interleave": "band", "compress": "lzw"},
    "big": {"BIGTIFF": "YES"},
    "motorola": {"ENDIANNESS": "BIG"},
    "big_motorola": {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
}


@pytest.fixture(autouse=True)
def _no_warning_escapes() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def write_tiff(
    path: Path, pixels: np.ndarray, palette: list[list[int]] | None = None, **options: Any
) -> Path:
    """Write [H,W] or [H,W,bands] with rasterio."""
    bands = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    shape = {"count": len(bands), "height": pixels.shape[0], "width": pixels.shape[1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", dtype=pixels.dtype.name, **shape, **options) as file:
            file.write(bands)
            if palette is not None:
                file.write_colormap(1, dict(enumerate(map(tuple, palette))))
    return path


def write_png(path: Path, width: int, height: int, bits: int, colour_type: int, rows: bytes) -> Path:
    """A PNG of any depth, made by hand: `rows` each start with their filter byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def zipped(path: Path) -> Path:
    """The same file within a zip beside it."""
    archive = path.with_suffix(path.suffix + ".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(path, f"folder/{path.name}")
    return archive / "folder" / path.name


@pytest.mark.parametrize("inside", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("layout", list(TIFFS))
def test_tiffs_of_every_layout(tmp_path: Path, layout: str, inside: bool) -> None:
    path = write_tiff(tmp_path / "image.TIF", PIXELS, **TIFFS[layout])
    label = write_tiff(tmp_path / "label.tiff", IDS, **TIFFS[layout])
    before = sorted(tmp_path.iterdir())
    if inside:
        path, label = zipped(path), zipped(label)
        before = sorted(tmp_path.iterdir())
    whole = read_image(path)
    assert whole.dtype == np.uint8
    assert whole.flags.c_contiguous
    np.testing.assert_array_equal(whole, PIXELS)
    np.testing.assert_array_equal(read_label(label, coloured=False), IDS)
    with open_image(path) as raster, open_label(label, coloured=False) as ids:
        assert (raster.width, raster.height) == (ids.width, ids.height) == (WIDTH, HEIGHT) == size(path)
        for first, last in ((50, 90), (0, 7), (95, 96), (0, 96), (3, 50)):
            rows = raster.rows(first, last)
            assert rows.flags.c_contiguous
            np.testing.assert_array_equal(rows, PIXELS[first:last])
            np.testing.assert_array_equal(ids.rows(first, last), IDS[first:last])
        for first, last in ((-1, 5), (5, 5), (90, 97)):
            with pytest.raises(ValueError, match=f"rows {first} to {last}"):
                raster.rows(first, last)
    assert sorted(tmp_path.iterdir()) == before  # no sidecar files


@pytest.mark.parametrize("inside", [False, True], ids=["folder", "zip"])
def test_png_and_jpeg(tmp_path: Path, inside: bool) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    Image.fromarray(PIXELS).save(tmp_path / "photo.JPG", "JPEG")
    Image.fromarray(IDS).save(tmp_path / "label.png")
    png, photo, label = (tmp_path / name for name in ("image.png", "photo.JPG", "label.png"))
    if inside:
        png, photo, label = zipped(png), zipped(photo), zipped(label)
    np.testing.assert_array_equal(read_image(png), PIXELS)
    np.testing.assert_array_equal(read_label(label, coloured=False), IDS)
    with Image.open(tmp_path / "photo.JPG") as oracle:
        np.testing.assert_array_equal(read_image(photo), np.asarray(oracle))
    with open_image(png) as raster:
        np.testing.assert_array_equal(raster.rows(10, 30), PIXELS[10:30])
    assert size(png) == size(photo) == size(label) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["photo.jpg", "image.png", "late.png", "image.tif"])
def test_pictures_come_as_pillow_turns_them(tmp_path: Path, name: str, orientation: int) -> None:
    path = tmp_path / name
    exif = Image.Exif()
    exif[0x0112] = orientation
    if name == "image.tif":
        Image.fromarray(PIXELS).save(path, tiffinfo={274: orientation}, compression="tiff_lzw")
    else:
        Image.fromarray(PIXELS).save(path, exif=exif)
    if name == "late.png":  # libpng's tools write the tag behind the pixels
        content = path.read_bytes()
        start = content.index(b"eXIf") - 4
        stop = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
        end = content.index(b"IEND") - 4
        path.write_bytes(content[:start] + content[stop:end] + content[start:stop] + content[end:])
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert len(expected) == (HEIGHT if orientation < 5 else WIDTH)
    for where in (path, zipped(path)):
        np.testing.assert_array_equal(read_image(where), expected)
        assert size(where) == facts(where).size == expected.shape[1::-1]
        with open_image(where) as raster:
            assert (raster.width, raster.height) == expected.shape[1::-1]
            for first, last in ((0, 7), (33, 34), (50, 96)):
                rows = raster.rows(first, last)
                assert rows.flags.c_contiguous
                np.testing.assert_array_equal(rows, expected[first:last])


@pytest.mark.parametrize("orientation", [0, 9, 1000])
def test_an_orientation_that_means_nothing_turns_nothing(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), PIXELS)


def test_colours_that_libtiff_turns_itself_are_refused_with_a_tag(tmp_path: Path) -> None:
    for mode in ("CMYK", "YCbCr"):
        Image.fromarray(PIXELS).convert(mode).save(tmp_path / "a.tif", tiffinfo={274: 3})
        with pytest.raises(InputError, match="expected RGB, grey or a palette in a TIFF with an orientation"):
            read_image(tmp_path / "a.tif")


def test_a_palette_is_no_grey(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).convert("P").save(tmp_path / "a.tif")
    for bands in ((), (1, 1, 1)):
        with pytest.raises(InputError, match="a palette's: gdal_translate -expand rgb"):
            read_image(tmp_path / "a.tif", bands)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_transparent_value_of_few_bits(tmp_path: Path, bits: int) -> None:
    values = np.tile(np.array([0, 1, 2, 3], np.uint8), (4, 2))
    shifts = np.arange(0, 8, bits)[::-1]
    packed = (values.reshape(4, -1, 8 // bits) << shifts).sum(axis=-1).astype(np.uint8)
    path = write_png(tmp_path / "a.png", 8, 4, bits, 0, b"".join(b"\0" + row.tobytes() for row in packed))
    content = path.read_bytes()
    chunk = b"tRNS" + b"\0\1"
    chunk = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))
    place = content.index(b"IDAT") - 4
    path.write_bytes(content[:place] + chunk + content[place:])
    with open_label(path, coloured=False) as raster:
        np.testing.assert_array_equal(raster.rows(0, 4), values)
        np.testing.assert_array_equal(raster.outside(0, 4), values == 1)


def test_a_tiff_is_not_held_whole(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "image.tif", np.zeros((2000, 1000, 3), np.uint8), compress="deflate")
    read_image(write_tiff(tmp_path / "small.tif", PIXELS))  # what is imported and set up once
    tracemalloc.start()
    with open_image(path) as raster:
        for first in range(0, 2000, 100):
            raster.rows(first, first + 100)
    rows = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    read_image(path)
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows < 2.5 * 100 * 1000 * 3  # these rows and the ones before
    assert whole < 1.1 * 2000 * 1000 * 3


def test_named_bands(tmp_path: Path) -> None:
    four = np.dstack([PIXELS, IDS])
    tiff = write_tiff(tmp_path / "image.tif", four)
    np.testing.assert_array_equal(read_image(tiff, (4, 1, 2)), four[..., [3, 0, 1]])
    np.testing.assert_array_equal(read_image(zipped(tiff), (1, 2, 3)), PIXELS)
    Image.fromarray(four).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(tmp_path / "image.png", (3, 2, 4)), four[..., [2, 1, 3]])
    Image.fromarray(IDS).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png", (1, 1, 1)), np.dstack([IDS] * 3))
    for path in (tiff, tmp_path / "image.png"):
        assert read_image(path, (1, 2, 3)).flags.c_contiguous
        for bands in ((1, 2), (1, 2, 5), (0, 1, 2)):
            with pytest.raises(InputError, match=r"three `bands` between 1 and the file's 4, found \["):
                read_image(path, bands)


def test_images_of_other_kinds_say_what_to_do(tmp_path: Path) -> None:
    cases = {
        "four.tif": (np.dstack([PIXELS, IDS]), "found 4 bands of uint8; name the three `bands`.*_RGB"),
        "grey.tif": (IDS, "found 1 bands of uint8; name the three `bands`"),
        "deep.tif": (
            PIXELS.astype(np.uint16),
            "found 3 bands of uint16; convert it to 8 bits.*gdal_translate",
        ),
        "real.tif": (PIXELS.astype(np.float32), "found 3 bands of float32; convert it to 8 bits"),
    }
    for name, (pixels, message) in cases.items():
        with pytest.raises(InputError, match=rf"{name}: expected three 8-bit bands, {message}"):
            read_image(write_tiff(tmp_path / name, pixels))
    for mode, hint in (("L", "bands"), ("LA", "bands"), ("P", "RGB"), ("1", "RGB")):
        Image.new(mode, (4, 4)).save(tmp_path / "image.png")
        with pytest.raises(InputError, match=f"expected three 8-bit bands, found .* mode {mode}; .*{hint}"):
            read_image(tmp_path / "image.png")
    Image.new("I;16", (4, 4)).save(tmp_path / "deep.png")
    write_png(
        tmp_path / "rgb16.png", 1, 1, 16, 2, b"\0" + bytes(6)
    )  # Pillow alone makes it 8 bits in silence
    for name in ("deep.png", "rgb16.png"):
        for bands in ((), (1, 2, 3)):
            with pytest.raises(InputError, match=r"mode (I|RGB);16B?; convert it to 8 bits"):
                read_image(tmp_path / name, bands)


def test_palettes(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    colours = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    label = Image.fromarray(indices, "P")
    label.putpalette(np.ravel(colours).tolist())
    label.save(tmp_path / "label.png")
    label.save(tmp_path / "transparent.png", transparency=1)
    tiff = write_tiff(tmp_path / "label.tif", indices, colours)
    for path in (tmp_path / "label.png", tmp_path / "transparent.png", tiff, zipped(tiff)):
        np.testing.assert_array_equal(read_label(path, coloured=False), indices)
        np.testing.assert_array_equal(read_label(path, coloured=True), np.array(colours)[indices])


def test_coloured_labels(tmp_path: Path) -> None:
    alpha = np.dstack([PIXELS, np.full((HEIGHT, WIDTH), 7, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    paths = [
        tmp_path / "alpha.png",
        write_tiff(tmp_path / "alpha.tif", alpha, photometric="RGB", ALPHA="YES"),
        write_tiff(tmp_path / "label.tif", PIXELS),
    ]
    for path in paths:
        np.testing.assert_array_equal(read_label(path, coloured=True), PIXELS)
        with pytest.raises(InputError, match="expected one 8-bit band of ids"):
            read_label(path, coloured=False)
    Image.fromarray(IDS).save(tmp_path / "ids.png")
    for path in (tmp_path / "ids.png", write_tiff(tmp_path / "ids.tif", IDS)):
        with pytest.raises(InputError, match="expected three 8-bit bands of colours, or a palette"):
            read_label(path, coloured=True)


def test_ids_of_few_bits_are_as_stored(tmp_path: Path) -> None:
    # Pillow alone gives 0, 85, 170, 255 and multiples of 17.
    two = write_png(tmp_path / "two.png", 4, 1, 2, 0, b"\0" + bytes([0b00011011]))
    assert read_label(two, coloured=False).tolist() == [[0, 1, 2, 3]]
    four = write_png(tmp_path / "four.png", 4, 1, 4, 0, b"\0" + bytes([0x01, 0x7F]))
    assert read_label(four, coloured=False).tolist() == [[0, 1, 7, 15]]
    one = write_png(tmp_path / "one.png", 8, 1, 1, 0, b"\0" + bytes([0b10010110]))
    bits = [[1, 0, 0, 1, 0, 1, 1, 0]]
    assert read_label(one, coloured=False).tolist() == bits
    assert read_label(one, coloured=False).dtype == np.uint8
    tiff = write_tiff(tmp_path / "one.tif", np.array(bits, np.uint8), NBITS=1)
    assert read_label(tiff, coloured=False).tolist() == bits


def test_ids_that_are_blurred_or_of_another_kind(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "label.jpg")
    write_tiff(tmp_path / "label.tif", np.zeros((32, 32), np.uint8), compress="jpeg")
    for name in ("label.jpg", "label.tif"):
        with pytest.raises(InputError, match="JPEG, which blurs them"):
            read_label(tmp_path / name, coloured=False)
    with pytest.raises(
        InputError, match=r"expected one 8-bit band of ids, found 1 bands of int32; convert it"
    ):
        read_label(write_tiff(tmp_path / "wide.tif", IDS.astype(np.int32)), coloured=False)


def _sample(path: Path) -> bytes:
    if path.suffix == ".tif":
        write_tiff(path, PIXELS, **TIFFS[path.stem])
    else:
        Image.fromarray(PIXELS).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "strips.tif", "lzw.tif", "tiles.tif", "planes.tif"])
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = _sample(path)
    whole = read_image(path)
    outside = zipped(path)
    np.testing.assert_array_equal(read_image(outside), whole)
    for length in (0, 3, 20, len(content) // 2, len(content) - 100):
        path.write_bytes(content[:length])
        for broken in (path, zipped(path)):
            with pytest.raises(InputError, match=rf"{name}: cannot be decoded .*download it again"):
                read_image(broken)
    rng = random.Random(0)
    for _ in range(40):
        flipped = bytearray(content)
        for _ in range(rng.choice((1, 3, 10))):
            flipped[rng.randrange(rng.choice((64, len(content))))] = rng.randrange(256)
        path.write_bytes(flipped)
        for attempt in (read_image, size, lambda path: read_label(path, coloured=False)):
            try:
                attempt(path)
            except InputError as error:
                assert name in str(error)


def test_a_wrong_checksum_in_a_zip_is_noticed(tmp_path: Path) -> None:
    """A changed pixel of an uncompressed TIFF or JPEG shows only there."""
    for name in ("a.jpg", "strips.tif"):
        _sample(tmp_path / name)
        member = zipped(tmp_path / name)
        archive = member.parents[1]
        content = bytearray(archive.read_bytes())
        start = content.index(b"PK\1\2") + 16
        content[start : start + 4] = b"abcd"
        archive.write_bytes(content)
        with pytest.raises(InputError, match="Bad CRC"):
            read_image(member)


def test_headers_that_claim_giants(tmp_path: Path) -> None:
    png = write_png(tmp_path / "bomb.png", 60_000, 60_000, 8, 2, b"")
    with pytest.raises(InputError, match=r"3600000000 pixels\) is more than we dare to open.*TILED=YES"):
        read_image(png)
    wide = write_png(tmp_path / "wide.png", 13_350, 13_350, 8, 2, b"")
    with pytest.raises(InputError, match=r"13350 x 13350 px is more than we dare.*gdal_translate"):
        read_image(wide)
    assert size(wide) == (13_350, 13_350)
    empty = {"driver": "GTiff", "dtype": "uint8", "SPARSE_OK": "TRUE", "tiled": True, "interleave": "pixel"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        large = {"width": 100_000, "height": 100_000, "count": 3}
        rasterio.open(tmp_path / "large.tif", "w", **large, **empty, blockxsize=256, blockysize=256).close()
        block = {"width": 20_000, "height": 20_000, "count": 3}
        rasterio.open(
            tmp_path / "block.tif", "w", **block, **empty, blockxsize=10_240, blockysize=10_240
        ).close()
    assert size(tmp_path / "large.tif") == (100_000, 100_000)
    with open_image(tmp_path / "large.tif") as raster:  # of any size by windows
        assert raster.rows(99_990, 100_000).shape == (10, 100_000, 3)
        with pytest.raises(InputError, match=r"large\.tif: 100000 x 100000 px is more than we dare"):
            raster.rows(0, raster.height)
    with pytest.raises(InputError, match=r"block\.tif: stored in pieces of 10240 x 10240 px"):
        read_image(tmp_path / "block.tif")


def test_the_limit_is_one_for_all_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rasters, "MOST_PIXELS", WIDTH * HEIGHT - 1)
    for name in ("a.png", "a.jpg", "strips.tif"):
        _sample(tmp_path / name)
        with pytest.raises(InputError, match=f"{WIDTH} x {HEIGHT} px is more than we dare"):
            read_image(tmp_path / name)


def test_files_that_are_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_tiff(tmp_path / "target.tif", PIXELS)
    vrt = (
        f'<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>\
<SourceFilename>{target}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    zero = bytearray(target.read_bytes())
    start = zero.index(struct.pack("<HHI", 256, 3, 1)) + 8
    zero[start : start + 2] = b"\0\0"
    for name, content in {
        "text.png": b"not an image",
        "text.tif": b"not an image",
        "vrt.tif": vrt.encode(),  # only GeoTIFFs: GDAL's other drivers follow references
        "zero.tif": bytes(zero),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: cannot be decoded"):
            read_image(tmp_path / name)
    for name in ("text.png", "text.tif", "vrt.tif", "zero.tif"):
        with pytest.raises(InputError, match=f"{name}: cannot be decoded"):
            size(tmp_path / name)
    write_png(tmp_path / "zero.png", 0, 0, 8, 2, b"")
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(tmp_path / "zero.png")
    (tmp_path / "folder.tif").mkdir()
    for name, message in (
        ("none.png", "no file"),
        ("none.tif", "no file"),
        ("folder.tif", "cannot be opened"),
    ):
        for attempt in (read_image, size):
            with pytest.raises(InputError, match=f"{name}: .*{message}"):
                attempt(tmp_path / name)

    def refuse(path: Path, mode: str) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    for name in ("target.tif", "text.png"):
        with pytest.raises(InputError, match=rf"{name}: cannot be opened \(Permission denied\)"):
            read_image(tmp_path / name)


def test_a_tiff_of_several_pages(tmp_path: Path) -> None:
    pages = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"pages\.tif: expected one image, found 2 pages"):
        read_image(tmp_path / "pages.tif")


def test_sidecar_files_are_not_followed(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "image.tif", PIXELS)
    (tmp_path / "image.tif.aux.xml").write_text("<PAMDataset><broken")
    (tmp_path / "image.tif.ovr").write_bytes(b"broken")
    (tmp_path / "image.tif.msk").write_bytes(b"broken")
    np.testing.assert_array_equal(read_image(path), PIXELS)


def test_importing_stays_light() -> None:
    code = "import sys, pipeline.scenes.reading; print('rasterio' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
