"""Kinds of places: what share of a scene is what, and how its streets and lots look."""

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Archetype:
    """Ranges are uniform; lengths in metres, shares of the area in 0..1, probabilities in 0..1."""

    name: str
    water: Range = (0.0, 0.0)
    river: float = 0.0  # probability that the water is a river
    forest: Range = (0.0, 0.05)
    bare: Range = (0.0, 0.04)
    crop: Range = (0.0, 0.0)  # share of parcels under crop
    street: Range = (38.0, 62.0)  # distance between neighbouring streets
    street_width: Range = (5.0, 8.5)
    street_kept: float = 0.9  # probability that a line of the street grid is a street
    lot: Range = (13.0, 20.0)
    lots_deep: bool = False  # two lots between parallel streets, so that each has its drive
    built: float = 0.85  # probability that a lot of a built block carries a building
    fill: Range = (0.5, 0.85)  # building's side over lot's side
    height: Range = (5.0, 12.0)
    gable: float = 0.5  # probability of a gabled roof
    yard_paved: float = 0.4
    pool: float = 0.0  # probability per built lot
    blocks: tuple[float, float, float, float] = (0.8, 0.1, 0.06, 0.04)  # built, green, car park, site
    trees: Range = (2.0, 5.0)  # single trees per 1000 m2 of open green
    cars: Range = (1.0, 2.5)  # per 1000 m2: parked ones of paved ground, moving ones of road
    people: Range = (0.0, 0.0)  # per 1000 m2 of road and paved ground
    tanks: float = 0.0  # probability of a group of storage tanks
    ships: Range = (0.0, 0.0)  # per 1000 m2 of water
    courts: float = 0.0  # probability of sports courts


ARCHETYPES: dict[str, Archetype] = {
    a.name: a
    for a in (
        Archetype(
            "dense",
            street=(42, 64),
            street_width=(6, 10),
            street_kept=0.9,
            lot=(11, 18),
            built=0.92,
            fill=(0.62, 0.95),
            height=(7, 16),
            gable=0.45,
            yard_paved=0.4,
            trees=(6, 14),
            cars=(2.0, 5.0),
            people=(4.0, 10.0),
            forest=(0, 0.06),
            bare=(0, 0.02),
            blocks=(0.8, 0.1, 0.06, 0.04),
            courts=0.15,
        ),
        Archetype(
            "suburb",
            street=(42, 58),
            street_width=(5, 7.5),
            street_kept=0.85,
            lot=(16, 23),
            lots_deep=True,
            built=0.9,
            fill=(0.46, 0.68),
            height=(4, 7),
            gable=0.85,
            yard_paved=0.08,
            pool=0.14,
            trees=(9, 20),
            cars=(1.5, 3.5),
            people=(2.0, 6.0),
            forest=(0.0, 0.14),
            blocks=(0.8, 0.16, 0.02, 0.02),
            courts=0.2,
        ),
        Archetype(
            "industry",
            street=(65, 100),
            street_width=(6, 10),
            street_kept=0.8,
            lot=(32, 52),
            built=0.9,
            fill=(0.55, 0.85),
            height=(6, 12),
            gable=0.12,
            yard_paved=0.6,
            trees=(4, 9),
            cars=(1.5, 4.0),
            people=(0.5, 1.5),
            bare=(0.02, 0.08),
            blocks=(0.76, 0.06, 0.1, 0.08),
            tanks=0.45,
        ),
        Archetype(
            "farm",
            blocks=(0.9, 0.1, 0.0, 0.0),
            street=(85, 150),
            street_width=(3.5, 6),
            street_kept=0.5,
            lot=(20, 30),
            built=0.05,
            fill=(0.4, 0.75),
            height=(4, 8),
            gable=0.8,
            yard_paved=0.3,
            trees=(0.3, 1.2),
            cars=(0.2, 0.8),
            forest=(0.02, 0.14),
            water=(0.0, 0.03),
            crop=(0.72, 0.95),
            bare=(0.0, 0.06),
        ),
        Archetype(
            "forest",
            blocks=(0.9, 0.1, 0.0, 0.0),
            street=(130, 220),
            street_width=(3, 5),
            street_kept=0.4,
            lot=(22, 30),
            built=0.03,
            fill=(0.35, 0.6),
            height=(4, 7),
            gable=0.8,
            trees=(2, 5),
            cars=(0.1, 0.4),
            forest=(0.55, 0.9),
            water=(0.0, 0.06),
            bare=(0.0, 0.05),
            yard_paved=0.1,
        ),
        Archetype(
            "water",
            blocks=(0.9, 0.1, 0.0, 0.0),
            street=(60, 110),
            street_width=(4, 7),
            street_kept=0.55,
            lot=(16, 26),
            built=0.35,
            fill=(0.4, 0.65),
            height=(4, 8),
            gable=0.6,
            trees=(2, 6),
            cars=(0.5, 1.5),
            forest=(0.03, 0.15),
            water=(0.35, 0.7),
            river=0.45,
            bare=(0.0, 0.08),
            yard_paved=0.2,
            ships=(0.2, 1.2),
            pool=0.05,
        ),
        Archetype(
            "park",
            blocks=(0.9, 0.1, 0.0, 0.0),
            street=(80, 140),
            street_width=(3.5, 6),
            street_kept=0.6,
            lot=(18, 28),
            built=0.08,
            fill=(0.35, 0.7),
            height=(4, 8),
            gable=0.6,
            trees=(6, 14),
            cars=(0.5, 1.5),
            people=(2.0, 6.0),
            forest=(0.08, 0.3),
            water=(0.02, 0.14),
            bare=(0.0, 0.05),
            yard_paved=0.3,
            courts=0.6,
            pool=0.05,
        ),
        Archetype(
            "barren",
            blocks=(0.9, 0.1, 0.0, 0.0),
            street=(100, 180),
            street_width=(3.5, 6),
            street_kept=0.5,
            lot=(18, 30),
            built=0.08,
            fill=(0.35, 0.6),
            height=(3, 7),
            gable=0.2,
            trees=(0.3, 1.5),
            cars=(0.2, 0.8),
            forest=(0.0, 0.04),
            water=(0.0, 0.03),
            bare=(0.5, 0.85),
            yard_paved=0.2,
        ),
    )
}
