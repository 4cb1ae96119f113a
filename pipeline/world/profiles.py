"""The five data sets as the embedded world imitates them: places, ground, camera."""

from dataclasses import dataclass

import numpy as np

from pipeline.scenes.registry import dataset
from pipeline.world.archetypes import ARCHETYPES, Archetype
from pipeline.world.classes import GROUND_COUNT, Ground
from pipeline.world.render import Style
from pipeline.world.sensor import Sensor

G = Ground


@dataclass(frozen=True)
class Profile:
    """One data set of the embedded world.

    Attributes:
        places: weight of each archetype.
        gsd: metres per pixel of the scaled-down images.
        footprint: side in pixels of an orthomosaic's exposures, 0 where an image is one exposure.
        people: labelled in this data set.
        classes: name of the class that each ground has in this data set.
    """

    places: dict[str, float]
    gsd: float
    style: Style
    sensor: Sensor
    classes: dict[Ground, str]
    footprint: float = 0.0
    people: bool = False

    def place(self, rng: np.random.Generator) -> Archetype:
        """Draw an archetype."""
        names = list(self.places)
        weights = np.array([self.places[name] for name in names])
        return ARCHETYPES[names[rng.choice(len(names), p=weights / weights.sum())]]


# ISPRS: roads, yards and car parks are impervious; bare ground counts with low vegetation; water, pools,
# courts and containers are clutter.
_ISPRS = {
    G.BARE: "LowVeg",
    G.PAVED: "ImSurf",
    G.BUILDING: "Building",
    G.ROAD: "ImSurf",
    G.WATER: "Clutter",
    G.TREE: "Tree",
    G.GRASS: "LowVeg",
    G.CROP: "LowVeg",
    G.STATIC_CAR: "Car",
    G.MOVING_CAR: "Car",
    G.PERSON: "Clutter",
    G.POOL: "Clutter",
    G.CLUTTER: "Clutter",
    G.COURT: "Clutter",
}
# LoveDA has no class for vehicles: annotators draw the road through them; yards, grass and courts are
# background.
_LOVEDA = {
    G.BARE: "Barren",
    G.PAVED: "Background",
    G.BUILDING: "Building",
    G.ROAD: "Road",
    G.WATER: "Water",
    G.TREE: "Forest",
    G.GRASS: "Background",
    G.CROP: "Agricultural",
    G.STATIC_CAR: "Road",
    G.MOVING_CAR: "Road",
    G.PERSON: "Background",
    G.POOL: "Background",
    G.CLUTTER: "Background",
    G.COURT: "Background",
}
_UAVID = {
    G.BARE: "Clutter",
    G.PAVED: "Road",
    G.BUILDING: "Building",
    G.ROAD: "Road",
    G.WATER: "Clutter",
    G.TREE: "Tree",
    G.GRASS: "LowVeg",
    G.CROP: "LowVeg",
    G.STATIC_CAR: "Static-Car",
    G.MOVING_CAR: "Moving-Car",
    G.PERSON: "Human",
    G.POOL: "Clutter",
    G.CLUTTER: "Clutter",
    G.COURT: "Clutter",
}
_FLOODNET = {
    G.BARE: "Background",
    G.PAVED: "Background",
    G.BUILDING: "Building",
    G.ROAD: "Road",
    G.WATER: "Water",
    G.TREE: "Tree",
    G.GRASS: "Grass",
    G.CROP: "Grass",
    G.STATIC_CAR: "Vehicle",
    G.MOVING_CAR: "Vehicle",
    G.PERSON: "Background",
    G.POOL: "Pool",
    G.CLUTTER: "Background",
    G.COURT: "Background",
}

RURAL = {"farm": 0.45, "forest": 0.2, "water": 0.2, "barren": 0.15}
URBAN = {"suburb": 0.4, "dense": 0.35, "industry": 0.15, "park": 0.1}

PROFILES: dict[str, Profile] = {
    "potsdam": Profile(
        {"dense": 0.4, "industry": 0.35, "suburb": 0.25},
        0.75,
        Style(1.15, 0.8, 0.010, variety=0.8, sun=(0.7, 1.2)),
        Sensor(blur=0.40, noise=0.006, severity=0.85, air=0.9),
        _ISPRS,
        footprint=140,
    ),
    "vaihingen": Profile(
        {"suburb": 0.6, "dense": 0.4},
        0.95,
        Style(0.95, 1.0, 0.012, variety=0.9, infrared=True, sun=(0.9, 1.6)),
        Sensor(blur=0.45, noise=0.008, severity=0.85, air=0.9),
        _ISPRS,
        footprint=140,
    ),
    "loveda": Profile(
        {},
        1.3,
        Style(1.2, 1.0, 0.015, variety=0.5),
        Sensor(blur=0.5, noise=0.010, jpeg=88, severity=0.9),
        _LOVEDA,
    ),
    "uavid": Profile(
        {"dense": 0.45, "suburb": 0.35, "park": 0.2},
        0.6,
        Style(1.25, 0.9, 0.012, variety=0.4),
        Sensor(blur=0.40, noise=0.010, jpeg=82, sharpen=0.35, vignette=0.04, severity=0.85, air=0.75),
        _UAVID,
        people=True,
    ),
    "floodnet": Profile(
        {"park": 0.35, "water": 0.25, "suburb": 0.25, "barren": 0.1, "forest": 0.05},
        0.5,
        Style(1.0, 1.0, 0.012, variety=0.85),
        Sensor(blur=0.45, noise=0.010, sharpen=0.2, vignette=0.03, severity=0.85, air=0.6),
        _FLOODNET,
    ),
}


def codes(name: str) -> np.ndarray:
    """Label value of each ground in data set `name`: uint8 (grounds,) ids or (grounds, 3) colours."""
    facts = dataset(name)
    of_class = {index: code for code, index in facts.codes.items() if index < len(facts.classes)}
    values = {
        ground: of_class[facts.classes.index(title)] for ground, title in PROFILES[name].classes.items()
    }
    if facts.flooded_ids:
        values[G.BUILDING_FLOODED], values[G.ROAD_FLOODED] = facts.flooded_ids
    width = (3,) if isinstance(next(iter(of_class.values())), tuple) else ()
    table = np.zeros((GROUND_COUNT, *width), np.uint8)
    for ground, value in values.items():
        table[ground] = value
    return table
