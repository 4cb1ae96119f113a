"""Names of classes as data sets write them, without blanks, and as words."""

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


def spell(name: str) -> str:
    """A class's name in lower-case words: "StorageTank", "storage-tank" -> "storage tank"."""
    words = " ".join(name.replace("-", " ").replace("_", " ").lower().split())
    return SPELLED.get(words, words)
