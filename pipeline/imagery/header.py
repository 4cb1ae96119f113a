"""What an image file from outside holds: one answer for everyone who opens such files.

PNG, JPEG and other containers are told by Pillow, TIFFs by their first directory (TIFF 6.0, sections 2 and 8;
BigTIFF), of which GDAL would need the whole file where it lies in a zip.
"""

import struct
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO, Literal, NamedTuple

from PIL import Image, PngImagePlugin

from pipeline.runtime.files import stand_in

Kind = Literal["grey", "rgb", "palette", "other"]

# Pillow's own limits refuse whole pictures for the history or the colour profile that stands beside them.
PngImagePlugin.MAX_TEXT_CHUNK = 2**26  # bytes, decompressed
PngImagePlugin.MAX_TEXT_MEMORY = 2**28

START = 512  # bytes by which a container is told
MAGIC: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("PNG", lambda start: start.startswith(b"\x89PNG\r\n\x1a\n")),
    ("JPEG", lambda start: start.startswith(b"\xff\xd8\xff")),
    ("TIFF", lambda start: start[:4] in (b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")),
    ("JPEG 2000", lambda start: start.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"))),
    ("BMP", lambda start: start.startswith(b"BM") and start[6:10] == bytes(4)),
    ("GIF", lambda start: start.startswith((b"GIF87a", b"GIF89a"))),
    ("WebP", lambda start: start.startswith(b"RIFF") and start[8:12] == b"WEBP"),
    ("HEIF", lambda start: start[4:8] == b"ftyp" and start[8:11] in (b"hei", b"hev", b"mif", b"msf", b"avi")),
    ("JPEG XL", lambda start: start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL "))),
    ("Photoshop file", lambda start: start.startswith(b"8BPS")),
    ("ERDAS Imagine file", lambda start: start.startswith(b"EHFA_HEADER_TAG")),
    ("NITF", lambda start: start.startswith((b"NITF", b"NSIF"))),
    ("PNM", lambda start: start[:1] == b"P" and start[1:2] in b"1234567f" and start[2:3].isspace()),
    ("PDF", lambda start: start.startswith(b"%PDF-")),
    ("HDF5", lambda start: start.startswith(b"\x89HDF\r\n\x1a\n")),
    ("NumPy array", lambda start: start.startswith(b"\x93NUMPY")),
)  # fmt: skip
PILLOW = {  # container -> Pillow's format
    "PNG": "PNG", "JPEG": "JPEG", "TIFF": "TIFF", "JPEG 2000": "JPEG2000", "BMP": "BMP", "GIF": "GIF",
    "WebP": "WEBP",
}  # fmt: skip
ORIENTATION = 0x0112  # EXIF and TIFF
WIDTH, LENGTH, BITS, PHOTOMETRIC, SAMPLES, EXTRA = 256, 257, 258, 262, 277, 338  # tags of a TIFF
GREY, RGB, PALETTE = (0, 1), 2, 3  # values of PHOTOMETRIC
TAGS = (WIDTH, LENGTH, BITS, PHOTOMETRIC, SAMPLES, EXTRA, ORIENTATION)
INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # their types
MOST_TAGS = 4096
MOST_VALUES = 1024  # of one tag: bands
PNG_CHUNK = struct.Struct(">I4s")
TELLING = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # chunks of a PNG that may say how it is turned


class Header(NamedTuple):
    """What an image file holds.

    container: PNG, JPEG, TIFF, JPEG 2000, BMP, GIF, WebP. width, height: in pixels of the picture upright.
    kind: what its bands mean; bands: their number without alpha (of a palette: 1); depth: bits of the widest
    band; alpha: whether some pixels may be transparent; orientation: how the stored picture has to be turned
    (EXIF 2.32, 4.6.4: 1 to 8; 1: not at all).
    """

    container: str
    width: int
    height: int
    kind: Kind
    bands: int
    depth: int
    alpha: bool
    orientation: int


class NoImageError(ValueError):
    """A file that holds no image that we read; `cure`: what to do about it; `container`: its kind where it
    is whole and of another one, else empty."""

    def __init__(self, reason: str, cure: str, container: str = "") -> None:
        super().__init__(reason)
        self.cure, self.container = cure, container


def container(file: BinaryIO) -> str:
    """What kind of file it is, by its first bytes (the position is then at the start again).

    Raises NoImageError for a file that is empty or of no known kind.
    """
    start = file.read(START)
    file.seek(0)
    name = next((name for name, fits in MAGIC if fits(start)), "")
    if name:
        return name
    if other := stand_in(start):
        raise NoImageError(f"it is {other[0]}", other[1])
    raise NoImageError("it is no PNG, JPEG or TIFF", "copy or download it again")


def read_header(file: BinaryIO) -> Header:
    """What a seekable file holds; nothing of its pixels is decoded.

    Raises NoImageError for a file that is no image, and whatever Pillow and struct raise on a broken one.
    """
    name = container(file)
    if name == "TIFF":
        return _tiff(file)
    if name not in PILLOW:
        raise NoImageError(f"it is a {name}", "convert it to PNG, JPEG or TIFF", name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of size and of odd metadata
        with Image.open(file, formats=(PILLOW[name],)) as image:
            header = pillow_header(image, name, orientation_of(image, file))
    return header._replace(depth=_depth_of_jpeg2000(file)) if name == "JPEG 2000" else header


def pillow_header(image: Any, name: str, orientation: int) -> Header:
    """The header of an image that Pillow has opened."""
    mode = (
        "LA" if stored_mode(image).startswith("LA") else image.mode.partition(";")[0]
    )  # of 16 bits: as RGBA
    kind, bands = KINDS.get(mode, ("other", len(image.getbands())))
    width, height = image.size[::-1] if orientation > 4 else image.size
    alpha = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    return Header(name, width, height, kind, bands, _depth(image), alpha, orientation)


KINDS: dict[str, tuple[Kind, int]] = {
    "1": ("grey", 1), "L": ("grey", 1), "LA": ("grey", 1), "La": ("grey", 1), "I": ("grey", 1),
    "F": ("grey", 1), "P": ("palette", 1), "PA": ("palette", 1), "RGB": ("rgb", 3), "RGBA": ("rgb", 3),
    "RGBa": ("rgb", 3), "RGBX": ("rgb", 3),
}  # fmt: skip


def stored_mode(image: Any) -> str:
    """Pillow's raw mode, which tells more bits, and fewer, than the mode that it decodes to: RGB;16B, L;2."""
    arguments = image.tile[0].args if image.tile else None
    return arguments if isinstance(arguments, str) else str((arguments or [image.mode])[0])


def _depth_of_jpeg2000(file: BinaryIO) -> int:
    """Bits of the first band, from the codestream's SIZ segment (ISO 15444-1, A.5.1); 8 where it has none."""
    file.seek(0)
    content = file.read(2**16)
    place = content.find(b"\xff\x4f\xff\x51") + 42
    return (content[place] & 0x7F) + 1 if 42 <= place < len(content) else 8


def _depth(image: Any) -> int:
    if "16" in stored_mode(image) or "16" in image.mode:
        return 16
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 8)


def orientation_of(image: Any, file: BinaryIO | None = None) -> int:
    """The orientation that an image opened by Pillow asks for, 1 to 8; a value that means none is 1.

    file: of a PNG; the chunks behind its pixels are then looked through, and the pixels decoded only where
    one of them may say something.
    """
    try:
        if isinstance(image, PngImagePlugin.PngImageFile) and not (file and _tells_late(file)):
            value = Image.Image.getexif(image).get(ORIENTATION, 1)  # PNG's own would decode the pixels
        else:
            value = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, EOFError, struct.error):
        return 1  # metadata that cannot be read turn nothing
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _tells_late(file: BinaryIO) -> bool:
    """Whether a PNG has a chunk that may hold an orientation behind its pixels. The position stays."""
    position = file.tell()
    try:
        file.seek(8)
        pixels = False
        while len(entry := file.read(PNG_CHUNK.size)) == PNG_CHUNK.size:
            length, kind = PNG_CHUNK.unpack(entry)
            pixels = pixels or kind == b"IDAT"
            if pixels and kind in TELLING:
                return True
            if kind == b"IEND":
                break
            file.seek(length + 4, 1)
        return False
    finally:
        file.seek(position)


def _tiff(file: BinaryIO) -> Header:
    tags = _tiff_tags(file)
    if not tags.get(WIDTH) or not tags.get(LENGTH):
        raise ValueError("a TIFF without a size")
    width, height = tags[WIDTH][0], tags[LENGTH][0]
    if not width or not height:
        raise ValueError("a TIFF without a size")
    samples, extra = tags.get(SAMPLES, [1])[0], tags.get(EXTRA, [])
    alpha = any(kind in (1, 2) for kind in extra)
    photometric = tags.get(PHOTOMETRIC, [1])[0]
    bands = samples - alpha
    kind: Kind = "other"
    if photometric == PALETTE:
        kind = "palette"
    elif photometric == RGB or (photometric in GREY and bands == 3):
        kind = "rgb"
    elif photometric in GREY and bands == 1:
        kind = "grey"
    orientation = tags.get(ORIENTATION, [1])[0]
    if not 1 <= orientation <= 8:
        orientation = 1
    if orientation > 4:
        width, height = height, width
    return Header("TIFF", width, height, kind, bands, max(tags.get(BITS, [1])), alpha, orientation)


def _tiff_tags(file: BinaryIO) -> dict[int, list[int]]:
    """The integers of TAGS in the first directory."""
    start = file.read(4)
    order = ">" if start[:2] == b"MM" else "<"
    big = start in (b"II\x2b\0", b"MM\0\x2b")
    offset = struct.unpack(order + ("4xQ" if big else "I"), file.read(12 if big else 4))[0]
    file.seek(offset)
    (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    entries = [file.read(20 if big else 12) for _ in range(min(count, MOST_TAGS))]
    values: dict[int, list[int]] = {}
    for entry in entries:
        tag, kind = struct.unpack_from(order + "HH", entry)
        if tag not in TAGS or kind not in INTEGERS:
            continue
        (number,) = struct.unpack_from(order + ("Q" if big else "I"), entry, 4)
        form = f"{order}{min(number, MOST_VALUES)}{INTEGERS[kind]}"
        content, place = entry, 12 if big else 8
        if struct.calcsize(form) > len(entry) - place:
            file.seek(struct.unpack_from(order + ("Q" if big else "I"), entry, place)[0])
            content, place = file.read(struct.calcsize(form)), 0
        values[tag] = list(struct.unpack_from(form, content, place))
    return values
