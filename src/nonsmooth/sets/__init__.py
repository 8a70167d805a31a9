"""Convex geometry: sets known by their support function. Knows no program and no framework."""

from nonsmooth.sets.ball import Ball
from nonsmooth.sets.bounded import Bounded
from nonsmooth.sets.bracket import Bracket
from nonsmooth.sets.cones import ConvexCone, GeneratedCone, LargestCoordinates, Orthant, ProductCone, Rays
from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.ellipsoid import Ellipsoid
from nonsmooth.sets.hull import Hull
from nonsmooth.sets.image import Image
from nonsmooth.sets.meeting import Meeting, find_meeting
from nonsmooth.sets.minimum_norm import MinimumNorm, Support
from nonsmooth.sets.minkowski import MinkowskiSum
from nonsmooth.sets.point import Point
from nonsmooth.sets.product import Product
from nonsmooth.sets.segments import Segments
from nonsmooth.sets.union import HullOfUnion

__all__ = [
    "Ball",
    "Bounded",
    "Bracket",
    "ConvexCone",
    "ConvexSet",
    "Ellipsoid",
    "GeneratedCone",
    "Hull",
    "HullOfUnion",
    "Image",
    "LargestCoordinates",
    "Meeting",
    "MinimumNorm",
    "MinkowskiSum",
    "Orthant",
    "Point",
    "Product",
    "ProductCone",
    "Rays",
    "Segments",
    "Support",
    "find_meeting",
]
