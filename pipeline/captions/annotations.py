"""The annotation files of one image each: Pascal VOC, DOTA and VisDrone."""

import math
import re
import reprlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

from pipeline.captions.boxes import Box
from pipeline.captions.classes import class_words
from pipeline.captions.items import read_annotation

VISDRONE = (
    "", "pedestrian", "person", "bicycle", "car", "van", "truck", "tricycle", "awning tricycle", "bus",
    "motorcycle", "other vehicle",
)  # fmt: skip  # 0: ignored regions; 2: "people", who sit or ride; 10: "motor"; 11: "others"
ENDINGS = {"voc": ".xml", "dota": ".txt", "visdrone": ".txt"}
CORNERS = ("xmin", "ymin", "xmax", "ymax")
DOTA_HEADER = re.compile(r"[A-Za-z ]+:")  # imagesource:GoogleEarth, gsd:0.146
DIFFICULTIES = ("0", "1", "2")  # of DOTA; 2: cut by the edge of a patch
DOTA_LINE = "x1 y1 x2 y2 x3 y3 x4 y4 class difficult"
Found = tuple[list[Box], int | None, int | None]  # boxes, and the image's width and height where they stand


def parse_voc(path: Path) -> Found:
    """Boxes, and width and height where they are said, of a Pascal VOC file.

    Raises ValueError that says what is wrong with it.
    """
    content = read_annotation(path)
    if b"<!ENTITY" in content.replace(b"\0", b""):  # a few of them can expand to gigabytes
        raise ValueError("XML that declares entities, which no such file needs")
    try:
        tree = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        cure = "" if _is_unicode(content) else "; save it as UTF-8"
        raise ValueError(f"no XML: {error}{cure}") from None
    if tree.tag.rpartition("}")[2].lower() != "annotation":
        raise ValueError(f"expected Pascal VOC's <annotation>, found <{tree.tag[:60]}>")
    boxes = []
    for entry in tree.iterfind(".//{*}object"):
        label = class_words(entry.findtext("{*}name"))
        if entry.find("{*}bndbox") is None:
            parts = ", ".join(part.tag[:30] for part in entry[:10])
            raise ValueError(f"{label}: expected a bndbox, found {parts}")
        boxes.append(Box(label, *(_number(entry.findtext(f"{{*}}bndbox/{{*}}{place}")) for place in CORNERS)))
    width, height = (_side(tree.findtext(f"{{*}}size/{{*}}{side}")) for side in ("width", "height"))
    return boxes, width, height


def parse_dota(path: Path) -> Found:
    """The upright boxes around a labelTxt file's quadrilaterals; ValueError for a line of another form."""
    boxes = []
    for line in read_text(path).splitlines():
        fields = line.split()
        if not fields or DOTA_HEADER.match(line):
            continue
        if yolo := _yolo(fields):
            raise ValueError(f"looks like a {yolo} file; expected {DOTA_LINE}, in pixels: convert it")
        if len(fields) < 9:
            raise ValueError(f"expected {DOTA_LINE}, found {reprlib.repr(line)}")
        corners = [_number(field) for field in fields[:8]]
        x, y = corners[::2], corners[1::2]
        words = fields[8:-1] if len(fields) > 9 and fields[-1] in DIFFICULTIES else fields[8:]
        numbers = [word for word in words[1:] if _is_number(word)]
        if len(numbers) > 1 or any(len(word) == 1 or not word.isdigit() for word in numbers):
            # A score, another difficulty, or two lines in one; Boeing 747 is a class of FAIR1M.
            raise ValueError(f"expected {DOTA_LINE}, found {reprlib.repr(line)}")
        boxes.append(Box(class_words(" ".join(words)), min(x), min(y), max(x), max(y)))
    return boxes, None, None


def _yolo(fields: list[str]) -> str | None:
    """Which of YOLO's files has such a line: a class's number, then shares of the image's sides."""
    try:
        category, *shares = map(float, fields)
    except ValueError:
        return None
    if not category.is_integer() or not all(-0.5 <= share <= 1.5 for share in shares):
        return None
    return {4: "YOLO", 5: "YOLO", 8: "YOLO-OBB", 9: "YOLO-OBB"}.get(len(shares), "YOLO segmentation")


def parse_visdrone(path: Path) -> Found:
    """Boxes of a VisDrone file; ValueError for a line of another form."""
    boxes = []
    for line in read_text(path).splitlines():
        if not line.strip():
            continue
        fields = line.split(",")
        if len(fields) < 6:
            raise ValueError(
                f"expected left,top,width,height,score,category and two more, found {reprlib.repr(line)}"
            )
        left, top, width, height, score, category = map(_number, fields[:6])
        if category not in range(len(VISDRONE)):
            raise ValueError(f"expected a category of 0 to {len(VISDRONE) - 1}, found {category:g}")
        if score and category:
            boxes.append(Box(VISDRONE[int(category)], left, top, left + width, top + height))
    return boxes, None, None


PARSERS: dict[str, Callable[[Path], Found]] = {
    "voc": parse_voc,
    "dota": parse_dota,
    "visdrone": parse_visdrone,
}


def read_text(path: Path) -> str:
    """A small text without its byte order mark; ValueError unless it is UTF-8."""
    content = read_annotation(path)
    if not content:
        raise ValueError("an empty file; download it again, or remove it with its image")
    if b"\0" in content:
        raise ValueError("UTF-16, or no text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("text that is not UTF-8; save it as UTF-8") from None


def _is_unicode(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return True


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _number(text: str | None) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected a number, found {reprlib.repr(text)}")
    return number


def _side(text: str | None) -> int | None:
    """A stated side of the image; None where none is stated, since the image's own counts."""
    try:
        return int(float(text or ""))
    except (ValueError, OverflowError):
        return None
