"""Names of classes as data sets write them, without blanks, and as words."""

import reprlib

# RSICD and RSITMD (file names), UC Merced, Sydney, DIOR, and the embedded world's scenes.
SPELLED = {
    "bareland": "bare land",
    "baseballdiamond": "baseball diamond",
    "baseballfield": "baseball field",
    "basketballcourt": "basketball court",
    "denseresidential": "dense residential",
    "golfcourse": "golf course",
    "golffield": "golf field",
    "groundtrackfield": "ground track field",
    "industrialarea": "industrial area",
    "mediumresidential": "medium residential",
    "mobilehomepark": "mobile home park",
    "parkingarea": "parking area",
    "parkinglot": "parking lot",
    "railwaystation": "railway station",
    "residentialarea": "residential area",
    "sparseresidential": "sparse residential",
    "storagetank": "storage tank",
    "storagetanks": "storage tanks",
    "tenniscourt": "tennis court",
    "trainstation": "train station",
}
MOST_LETTERS = 100
PLACEHOLDERS = ("nan", "none", "null", "n/a")  # what programs write where there is no name


def spell(name: str) -> str:
    """A class's name in lower-case words: "StorageTank", "storage-tank" -> "storage tank"."""
    words = " ".join(name.replace("-", " ").replace("_", " ").lower().split())
    return SPELLED.get(words, words)


def class_words(name: object) -> str:
    """A class's name as `spell` writes it.

    Raises ValueError for what is no name: a null, a blank, a number, a placeholder such as "nan", more than
    MOST_LETTERS letters.
    """
    words = spell(name) if isinstance(name, str) else ""
    if len(words) > MOST_LETTERS:
        raise ValueError(f"expected a class's name, found {len(words)} letters")
    if words in PLACEHOLDERS or not any(map(str.isalpha, words)):
        raise ValueError(f"expected a class's name, found {reprlib.repr(name)}")
    return words
