"""What names of files say: which are pictures, which are no data, which are the same."""

import unicodedata

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
OTHER_IMAGES = (
    ".avif", ".bmp", ".ecw", ".gif", ".heic", ".heif", ".hif", ".img", ".j2c", ".j2k", ".jfif", ".jp2",
    ".jpe", ".jpf", ".jpx", ".jxl", ".nitf", ".npy", ".ntf", ".pgm", ".pnm", ".ppm", ".psd", ".sid", ".tga",
    ".webp",
)  # fmt: skip  # not read, but pictures that may be missed


def normalised(name: str) -> str:
    """A name in Unicode's form NFC, in which equal texts are equal; macOS keeps names in NFD."""
    return unicodedata.normalize("NFC", name)


def is_picture(name: str) -> bool:
    """Whether a file's name says that it holds an image, also one of a kind that we do not read."""
    return name.lower().endswith(IMAGES + OTHER_IMAGES)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data: hidden, or what macOS leaves beside files."""
    return name.startswith(".") or name == "__MACOSX"
