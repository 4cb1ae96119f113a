"""Images of caption sources of every depth, orientation and kind, against what they were made of."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image, PngImagePlugin

from pipeline.captions import pictures
from pipeline.captions.order import open_rgb
from pipeline.captions.pictures import ImageError

LIMITS = (16, 10**6)
RNG = np.random.default_rng(0)
DEEP = RNG.integers(200, 3000, (40, 60, 3)).astype(np.uint16)  # 12-bit satellite data


def tiff(values: np.ndarray, **options: Any) -> bytes:
    bands = values.transpose(2, 0, 1)
    with rasterio.MemoryFile() as memory:
        shape = {"count": len(bands), "height": values.shape[0], "width": values.shape[1]}
        with memory.open(driver="GTiff", dtype=values.dtype.name, **shape, **options) as file:
            file.write(bands)
        return memory.read()


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits by hand: grey, grey with alpha, RGB or RGBA by the number of bands."""
    height, width, bands = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def stretched(values: np.ndarray) -> np.ndarray:
    """Linearly from the lowest of all values to the highest, to 0-255."""
    low, high = float(values.min()), float(values.max())
    return np.rint((values.astype(float) - low) / (high - low) * 255).astype(np.uint8)


def decoded(data: bytes, luma: bool = False) -> tuple[np.ndarray, str]:
    image, ending = pictures.decode(data, *LIMITS, luma=luma)
    return np.asarray(image), ending


OPAQUE = np.full((40, 60, 1), 65535, np.uint16)
OPAQUE[:5] = 0
FILES: dict[str, bytes] = {
    "chunky": tiff(DEEP, photometric="RGB", interleave="pixel"),
    "planar": tiff(DEEP, photometric="RGB", interleave="band", compress="lzw"),
    "three bands without a name": tiff(DEEP),
    "png": png16(DEEP),
}


@pytest.mark.parametrize("name", list(FILES))
def test_colours_of_16_bits_are_stretched_together(name: str) -> None:
    found, ending = decoded(FILES[name])
    np.testing.assert_allclose(found.astype(int), stretched(DEEP), atol=1)
    assert ending == ""  # not stored as it is: what reads the shards would see nearly black
    np.testing.assert_array_equal(decoded(FILES[name], luma=True)[0], found)
    image = pictures.decode(FILES[name], *LIMITS)[0]
    np.testing.assert_array_equal(np.asarray(open_rgb(pictures.encode(image))), found)


def test_grey_is_stretched_as_colours_are() -> None:
    grey = DEEP[..., :1]
    for data in (tiff(grey), png16(grey)):
        np.testing.assert_allclose(decoded(data)[0].astype(int), stretched(grey).repeat(3, axis=-1), atol=1)
    real = grey.astype(np.float32)
    real[0, 0] = np.nan
    found = decoded(tiff(real))[0]
    assert (found[0, 0] == 0).all()
    np.testing.assert_allclose(found[1:].astype(int), stretched(grey)[1:].repeat(3, axis=-1), atol=1)


def test_alpha_of_16_bits_is_black_and_no_value_of_the_stretch() -> None:
    grey = DEEP[..., :1]
    found = decoded(png16(np.dstack([grey, OPAQUE])))[0]
    assert (found[:5] == 0).all()
    np.testing.assert_allclose(found[5:].astype(int), stretched(grey[5:]).repeat(3, axis=-1), atol=1)
    wild = DEEP.copy()
    wild[:5] = 60_000  # under the transparent part
    for data in (
        png16(np.dstack([wild, OPAQUE])),
        tiff(np.dstack([wild, OPAQUE]), photometric="RGB", ALPHA="YES"),
    ):
        found = decoded(data)[0]
        assert (found[:5] == 0).all()
        np.testing.assert_allclose(found[5:].astype(int), stretched(DEEP[5:]), atol=1)
    holes = DEEP.copy()
    holes[:5] = 0
    found = decoded(tiff(holes, photometric="RGB", nodata=0))[0]
    np.testing.assert_allclose(found[5:].astype(int), stretched(DEEP[5:]), atol=1)


def test_bands_whose_colours_nobody_names_are_refused() -> None:
    for bands in (2, 4, 8):
        values = RNG.integers(0, 3000, (40, 60, bands)).astype(np.uint16)
        with pytest.raises(ImageError, match=f"{bands} bands of 16 bits whose colours are not named"):
            decoded(tiff(values, photometric="MINISBLACK"))


@pytest.mark.parametrize("luma", [False, True])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turned_pictures_come_upright_and_are_stored_so(orientation: int, luma: bool) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:9, :9] = 250
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form in ("PNG", "JPEG", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, form, exif=exif, quality=100)
        found, ending = decoded(buffer.getvalue(), luma)
        turned = np.rot90(pixels, {1: 0, 3: 2, 6: 3, 8: 1}[orientation])
        assert found.shape[:2] == turned.shape[:2]
        grey = found if found.ndim == 2 else found[..., 0]
        assert ((grey > 128) == (turned[..., 0] > 128)).mean() > 0.98
        assert ending == ({"PNG": "png", "JPEG": "jpg"}.get(form, "") if orientation == 1 else "")


def test_transparent_pixels_are_black() -> None:
    pixels = np.full((40, 60, 4), 200, np.uint8)
    pixels[:7, :, 3] = 0
    pixels[7:9, :, 3] = 90  # half transparent is a pixel
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    found, ending = decoded(buffer.getvalue())
    assert (found[:7] == 0).all() and (found[7:] == 200).all()
    assert ending == ""
    key = io.BytesIO()
    grey = np.where(np.arange(60) < 9, 3, 100) + np.zeros((40, 1), int)
    Image.fromarray(grey.astype(np.uint8)).convert("RGB").save(key, "PNG", transparency=(3, 3, 3))
    found, ending = decoded(key.getvalue())
    assert (found[:, :9] == 0).all() and (found[:, 9:] == 100).all()
    assert ending == ""


def test_what_stands_beside_the_pixels_does_not_matter() -> None:
    """A long history or a large colour profile: Pillow alone refuses such a picture."""
    pixels = RNG.integers(0, 256, (40, 60, 3), np.uint8)
    for kind in ("text", "profile"):
        info = PngImagePlugin.PngInfo()
        if kind == "text":
            info.add_text("history", "x" * 2_000_000, zip=True)
        buffer = io.BytesIO()
        more = {"icc_profile": bytes(2_000_000)} if kind == "profile" else {}
        Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info, **more)
        np.testing.assert_array_equal(decoded(buffer.getvalue())[0], pixels)


def test_files_of_another_kind_are_named() -> None:
    for content, reason in (
        (b"", "it is an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "it is a Git LFS pointer"),
        (b"\n <!DOCTYPE html><html>", "it is a web page"),
        (b"%PDF-1.7", "it is a PDF"),
        (b"anything", "it is no PNG, JPEG or TIFF"),
    ):
        with pytest.raises(ImageError, match=reason):
            decoded(content)


@pytest.mark.parametrize("name", list(FILES))
def test_whatever_such_a_file_holds_it_is_read_or_refused(name: str) -> None:
    rng = np.random.default_rng(1)
    content = FILES[name]
    for _ in range(60):
        flipped = bytearray(content[: rng.integers(1, len(content) + 1)])
        for place in rng.integers(0, min(len(flipped), 400), 3):
            flipped[place] = rng.integers(256)
        try:
            found, _ = decoded(bytes(flipped))
            assert found.dtype == np.uint8
        except ImageError:
            pass
