"""Optimisers with guarantees for programs that are not differentiable.

The classes of a framework are loaded when they are asked for: `import nonsmooth` imports no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "INNA",
    "ConstantSchedule",
    "EpochSchedule",
    "GeometricSchedule",
    "INNAprop",
    "LogarithmicSchedule",
    "PowerSchedule",
    "Schedule",
    "ScheduleCheck",
    "ScheduleLR",
    "WarmupSchedule",
    "WithoutReplacement",
    "WithoutReplacementSampler",
    "check_schedule",
    "inna",
    "innaprop",
    "optax_schedule",
    "stable_step",
]

_HOMES = {
    "ConstantSchedule": "nonsmooth.optim.schedules",
    "EpochSchedule": "nonsmooth.optim.schedules",
    "GeometricSchedule": "nonsmooth.optim.schedules",
    "INNA": "nonsmooth.optim.torch.inna",
    "INNAprop": "nonsmooth.optim.torch.innaprop",
    "LogarithmicSchedule": "nonsmooth.optim.schedules",
    "PowerSchedule": "nonsmooth.optim.schedules",
    "Schedule": "nonsmooth.optim.schedules",
    "ScheduleCheck": "nonsmooth.optim.conditions",
    "ScheduleLR": "nonsmooth.optim.torch.schedules",
    "WarmupSchedule": "nonsmooth.optim.schedules",
    "WithoutReplacement": "nonsmooth.optim.sampling",
    "WithoutReplacementSampler": "nonsmooth.optim.torch.sampling",
    "check_schedule": "nonsmooth.optim.conditions",
    "inna": "nonsmooth.optim.jax.inna",
    "innaprop": "nonsmooth.optim.jax.innaprop",
    "optax_schedule": "nonsmooth.optim.jax.schedules",
    "stable_step": "nonsmooth.optim.inertial_newton",
}
"""The module of every public name; no module of this folder may have the name of another object."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
