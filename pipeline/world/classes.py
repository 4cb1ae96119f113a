"""What a pixel of the embedded world can be: richer than any of the five data sets, which map it down."""

from enum import IntEnum


class Ground(IntEnum):
    """Label of a pixel at full richness."""

    BARE = 0
    PAVED = 1  # yards, pavements, car parks
    BUILDING = 2
    ROAD = 3
    WATER = 4
    TREE = 5
    GRASS = 6
    CROP = 7
    STATIC_CAR = 8
    MOVING_CAR = 9
    PERSON = 10
    POOL = 11
    CLUTTER = 12  # containers and heaps
    BUILDING_FLOODED = 13
    ROAD_FLOODED = 14
    SHIP = 15
    TANK = 16  # storage tank
    COURT = 17  # tennis court


GROUND_COUNT = len(Ground)
