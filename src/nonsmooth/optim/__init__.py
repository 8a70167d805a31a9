"""Optimisers with guarantees for programs that are not differentiable.

The classes of a framework are loaded when they are asked for: `import nonsmooth` imports no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nonsmooth.optim.conditions import ScheduleCheck, check_schedule
    from nonsmooth.optim.constraints import Box, Constraint, EuclideanBall, L1Ball, Polyhedron, Simplex, WholeSpace
    from nonsmooth.optim.inertial_newton import stable_step
    from nonsmooth.optim.jax.inna import inna
    from nonsmooth.optim.jax.innaprop import innaprop
    from nonsmooth.optim.jax.schedules import optax_schedule
    from nonsmooth.optim.maximisers import Exhaustive, ProjectedAscent
    from nonsmooth.optim.ridge_method import ridge
    from nonsmooth.optim.ridge_run import RidgeRun
    from nonsmooth.optim.ridge_step import RidgeCertificate, RidgeDirection, ridge_direction
    from nonsmooth.optim.sampling import WithoutReplacement
    from nonsmooth.optim.schedules import (
        ConstantSchedule,
        EpochSchedule,
        GeometricSchedule,
        LogarithmicSchedule,
        PowerSchedule,
        Schedule,
        WarmupSchedule,
    )
    from nonsmooth.optim.torch.inna import INNA
    from nonsmooth.optim.torch.innaprop import INNAprop
    from nonsmooth.optim.torch.sampling import WithoutReplacementSampler
    from nonsmooth.optim.torch.schedules import ScheduleLR

__all__ = [
    "INNA",
    "Box",
    "ConstantSchedule",
    "Constraint",
    "EpochSchedule",
    "EuclideanBall",
    "Exhaustive",
    "GeometricSchedule",
    "INNAprop",
    "L1Ball",
    "LogarithmicSchedule",
    "Polyhedron",
    "PowerSchedule",
    "ProjectedAscent",
    "RidgeCertificate",
    "RidgeDirection",
    "RidgeRun",
    "Schedule",
    "ScheduleCheck",
    "ScheduleLR",
    "Simplex",
    "WarmupSchedule",
    "WholeSpace",
    "WithoutReplacement",
    "WithoutReplacementSampler",
    "check_schedule",
    "inna",
    "innaprop",
    "optax_schedule",
    "ridge",
    "ridge_direction",
    "stable_step",
]

_HOMES = {
    "Box": "nonsmooth.optim.constraints",
    "ConstantSchedule": "nonsmooth.optim.schedules",
    "Constraint": "nonsmooth.optim.constraints",
    "EpochSchedule": "nonsmooth.optim.schedules",
    "EuclideanBall": "nonsmooth.optim.constraints",
    "Exhaustive": "nonsmooth.optim.maximisers",
    "GeometricSchedule": "nonsmooth.optim.schedules",
    "INNA": "nonsmooth.optim.torch.inna",
    "INNAprop": "nonsmooth.optim.torch.innaprop",
    "L1Ball": "nonsmooth.optim.constraints",
    "LogarithmicSchedule": "nonsmooth.optim.schedules",
    "Polyhedron": "nonsmooth.optim.constraints",
    "PowerSchedule": "nonsmooth.optim.schedules",
    "ProjectedAscent": "nonsmooth.optim.maximisers",
    "RidgeCertificate": "nonsmooth.optim.ridge_step",
    "RidgeDirection": "nonsmooth.optim.ridge_step",
    "RidgeRun": "nonsmooth.optim.ridge_run",
    "Schedule": "nonsmooth.optim.schedules",
    "ScheduleCheck": "nonsmooth.optim.conditions",
    "ScheduleLR": "nonsmooth.optim.torch.schedules",
    "Simplex": "nonsmooth.optim.constraints",
    "WarmupSchedule": "nonsmooth.optim.schedules",
    "WholeSpace": "nonsmooth.optim.constraints",
    "WithoutReplacement": "nonsmooth.optim.sampling",
    "WithoutReplacementSampler": "nonsmooth.optim.torch.sampling",
    "check_schedule": "nonsmooth.optim.conditions",
    "inna": "nonsmooth.optim.jax.inna",
    "innaprop": "nonsmooth.optim.jax.innaprop",
    "optax_schedule": "nonsmooth.optim.jax.schedules",
    "ridge": "nonsmooth.optim.ridge_method",
    "ridge_direction": "nonsmooth.optim.ridge_step",
    "stable_step": "nonsmooth.optim.inertial_newton",
}
"""The module of every public name; no module of this folder may have the name of another object."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
