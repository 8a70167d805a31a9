"""Kinks: where a program is not differentiable, and which branch is taken there."""

from nonsmooth.kinks.kink import Kink, KinkRow, Kinks, find_kinks
from nonsmooth.kinks.selection import AtKinks, selection

__all__ = ["AtKinks", "Kink", "KinkRow", "Kinks", "find_kinks", "selection"]
