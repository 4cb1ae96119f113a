"""What a caption image shows, and sentences about it: true, coarse, or without a link to the ground."""

from dataclasses import dataclass

import numpy as np

from pipeline.world.classes import Ground
from pipeline.world.objects import Box
from pipeline.world.render import Picture
from pipeline.world.scene import Scene

# The words by which captions mention an object; a plural or a compound counts as well. Written beside the
# sources as objects.json, so that whoever measures mentions needs no knowledge of this module.
OBJECT_WORDS: dict[str, list[str]] = {
    "bare soil": ["bare soil", "bare land", "bare ground"],
    "building": ["building", "buildings", "house", "houses"],
    "car": ["car", "cars", "vehicle", "vehicles"],
    "farmland": ["farmland", "farmlands", "field", "fields", "crop", "crops"],
    "grass": ["grass", "grassland", "lawn", "lawns", "meadow"],
    "pool": ["pool", "pools"],
    "road": ["road", "roads", "street", "streets", "highway"],
    "ship": ["ship", "ships", "boat", "boats"],
    "storage tank": ["storage tank", "storage tanks"],
    "tennis court": ["tennis court", "tennis courts"],
    "trees": ["tree", "trees", "forest", "woods", "wood"],
    "water": ["water", "lake", "river", "pond"],
}
COVERS = {  # object, its grounds, share of the image from which it counts as visible
    "trees": ((Ground.TREE,), 0.05),
    "water": ((Ground.WATER,), 0.03),
    "farmland": ((Ground.CROP,), 0.06),
    "grass": ((Ground.GRASS,), 0.10),
    "bare soil": ((Ground.BARE,), 0.08),
    "road": ((Ground.ROAD, Ground.MOVING_CAR), 0.03),
}
COUNTED = {
    Ground.STATIC_CAR: "car",
    Ground.MOVING_CAR: "car",
    Ground.SHIP: "ship",
    Ground.TANK: "storage tank",
    Ground.COURT: "tennis court",
}
BUILDING_PIXELS = 20  # of one building, from which it counts
POOL_PIXELS = 4
SCENES = {  # archetype -> scene word, and an object that the word promises
    "dense": ("city", "building"),
    "suburb": ("residential area", "building"),
    "industry": ("industrial area", "building"),
    "farm": ("farmland", "farmland"),
    "forest": ("forest", "trees"),
    "water": ("lake", "water"),
    "park": ("park", "grass"),
    "barren": ("bare land", "bare soil"),
}
TAGS = {
    "city": "building of apartments",
    "residential area": "landuse of residential",
    "industrial area": "landuse of industrial",
    "farmland": "landuse of farmland",
    "forest": "landuse of forest",
    "lake": "natural of water",
    "park": "leisure of park",
    "bare land": "natural of bare land",
    "grassland": "landuse of grass",
    "parking area": "amenity of parking",
}
NAMES = ("benjamin grant", "anna keller", "tom ortiz", "li wei", "maria rossi", "sam carter")
UNLINKED = (
    "google earth to photograph by {name}",
    "royalty free stock photo by {name}",
    "download free 4k wallpaper {number}",
    "{name} drone show reel {year}",
    "best photos of the year {year}",
    "image courtesy of {name} , {year}",
    "travel guide {year} : ten places to visit",
    "limited edition print number {number} by {name}",
    "view from seat {number} on the way home",
)
UNLINKED_TAGS = ("operator of {name}", "start_date of {year}", "ref of {number}", "source of survey {year}")


@dataclass(frozen=True)
class Content:
    """What is really visible: `scene` a scene word, `objects` plain nouns (keys of OBJECT_WORDS) with the
    number of single things, or 0 for what covers the ground; `cover` the share of the image of those."""

    scene: str
    objects: dict[str, int]
    cover: dict[str, float]


def inspect(scene: Scene, picture: Picture, boxes: list[Box]) -> Content:
    """Read the content off the labels and the boxes of a picture."""
    shares = np.bincount(picture.labels.ravel(), minlength=len(Ground)) / picture.labels.size
    cover = {name: float(shares[list(grounds)].sum()) for name, (grounds, _) in COVERS.items()}
    objects = {name: 0 for name, (_, least) in COVERS.items() if cover[name] >= least}
    built = np.bincount(scene.lots.lot[picture.labels == Ground.BUILDING], minlength=scene.lots.count)
    counts = {"building": int((built >= BUILDING_PIXELS).sum())}
    wet = np.bincount(scene.lots.lot[picture.labels == Ground.POOL], minlength=scene.lots.count)
    counts["pool"] = int((wet >= POOL_PIXELS).sum())
    for box in boxes:
        if (picture.labels[box.top : box.bottom, box.left : box.right] == box.ground).any():
            name = COUNTED.get(box.ground)
            if name:
                counts[name] = counts.get(name, 0) + 1
    objects |= {name: count for name, count in counts.items() if count}
    word, promised = SCENES[scene.place.name]
    if promised not in objects:
        word = _fallback(cover, objects, float(shares[Ground.PAVED]))
    return Content(word, objects, cover)


def _fallback(cover: dict[str, float], objects: dict[str, int], paved: float) -> str:
    """Scene word of an image that does not show what its place promises: by what covers most of it."""
    words = {
        "trees": "forest",
        "water": "lake",
        "farmland": "farmland",
        "grass": "grassland",
        "bare soil": "bare land",
    }
    seen = {words[name]: share for name, share in cover.items() if name in words and name in objects}
    seen["parking area"] = paved
    return max(sorted(seen), key=lambda word: seen[word])


def phrase(name: str, content: Content) -> str:
    """An object with its quantity: "several buildings", "dense trees", "a road"."""
    count = content.objects[name]
    if name == "trees":
        return "dense trees" if content.cover["trees"] > 0.3 else "scattered trees"
    if name in ("water", "grass", "bare soil"):
        return f"a large area of {name}" if content.cover[name] > 0.4 else f"some {name}"
    if name == "farmland":
        return "large fields" if content.cover[name] > 0.4 else "some fields"
    if name == "road":
        return "wide roads" if content.cover["road"] > 0.15 else "a road"
    if count == 1:
        return f"a {name}"
    return f"{'two' if count == 2 else 'several' if count <= 6 else 'many'} {name}s"


def describe(rng: np.random.Generator, content: Content, number: int = 5) -> list[str]:
    """`number` different true sentences; the first one names everything."""
    names = sorted(content.objects, key=lambda name: (-content.cover.get(name, 0.5), name))
    whole = [phrase(name, content) for name in names]
    a_scene = f"{'an' if content.scene[0] in 'aeiou' else 'a'} {content.scene}"
    sentences = [f"a satellite image of {a_scene} with {_join(whole)} ."]
    forms = (
        "we can see {things} in the {scene} .",
        "this is {a_scene} with {things} .",
        "{things} can be seen in the {scene} .",
        "{things} in {a_scene} .",
        "{a_scene} seen from above with {things} .",
        "the {scene} has {things} .",
    )
    while len(sentences) < number:
        some = min(len(whole), int(rng.integers(1, 4)))
        chosen = [whole[i] for i in sorted(rng.choice(len(whole), some, replace=False))]
        sentence = forms[rng.integers(len(forms))].format(
            things=_join(chosen), scene=content.scene, a_scene=a_scene
        )
        if sentence not in sentences:
            sentences.append(sentence)
    return sentences


def _join(things: list[str]) -> str:
    return " , ".join(things[:-1]) + (" and " if len(things) > 1 else "") + things[-1]


def coarse(content: Content) -> str:
    """A map tag in SkyScript's form: right, but of one word."""
    return f"a satellite image of {TAGS[content.scene]}"


def coarse_all(content: Content) -> str:
    """The tag with those of its surroundings, SkyScript's `title_multi_objects`."""
    near = {
        "building": "building of yes",
        "road": "highway of residential",
        "water": "natural of water",
        "trees": "natural of tree",
    }
    tags = [tag for name, tag in near.items() if name in content.objects and tag != TAGS[content.scene]]
    return coarse(content) + (f" , surrounded by {_join(tags)}" if tags else "")


def unlinked(rng: np.random.Generator, tag: bool = False) -> str:
    """Text that says nothing about the ground, in the manner of web captions or of useless map tags."""
    forms = UNLINKED_TAGS if tag else UNLINKED
    values = {
        "name": NAMES[rng.integers(len(NAMES))],
        "year": rng.integers(2009, 2024),
        "number": rng.integers(1, 400),
    }
    text = forms[rng.integers(len(forms))].format(**values)
    return f"a satellite image of {text}" if tag else text
