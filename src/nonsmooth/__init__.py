"""Automatic differentiation of programs that are not differentiable.

>>> import torch
>>> import nonsmooth as ns
>>> f = lambda t: torch.relu(t) - torch.relu(-t)       # the identity
>>> [float(ns.backprop(f, torch.tensor(0.0), at_kinks=c)) for c in ("framework", 0.5, 1.0)]
[0.0, 1.0, 2.0]

Importing the package imports no framework: one is found from the type of the point.
"""

from __future__ import annotations

from nonsmooth import errors, implicit, optim
from nonsmooth.audit import callbacks
from nonsmooth.audit.audit import Audit
from nonsmooth.audit.audit import run_audit as audit
from nonsmooth.audit.watch import Watch, watch
from nonsmooth.audit.watch_log import read_run
from nonsmooth.bounds.bounds import Bounds
from nonsmooth.bounds.bounds import bound_program as bounds
from nonsmooth.bounds.region import Ball
from nonsmooth.bounds.smoothing import Smoothed
from nonsmooth.bounds.smoothing import smooth_program as smooth
from nonsmooth.bounds.steps import CertifiedStep, Descent, certified_step, projected_gradient
from nonsmooth.cost.cost import Cost
from nonsmooth.cost.cost import count_cost as cost
from nonsmooth.derivatives.abs_normal import AbsNormal, abs_normal
from nonsmooth.derivatives.backprop import backprop, capture, grad, value_and_backprop, value_and_grad
from nonsmooth.derivatives.clarke import Clarke, clarke
from nonsmooth.derivatives.criticality import ball_criticality, path_criticality
from nonsmooth.derivatives.directional import coordinate_derivatives, directional
from nonsmooth.derivatives.eager import at_kinks
from nonsmooth.derivatives.field import Field, field
from nonsmooth.derivatives.gradcheck import Gradcheck, gradcheck
from nonsmooth.derivatives.lexicographic import forward_subgradient, lexicographic
from nonsmooth.derivatives.potential import Potential, potential
from nonsmooth.derivatives.subgradient import Certificate, Subgradient, subgradient
from nonsmooth.derivatives.verdict import GradientVerdict, verdict
from nonsmooth.dictionary import (
    Cone,
    Extremum,
    Kind,
    Operation,
    Ranking,
    Singularity,
    Switch,
    operations,
    piecewise_linear,
    register,
)
from nonsmooth.frameworks.entry import objective
from nonsmooth.kinks.kink import Kink, Kinks
from nonsmooth.kinks.kink import find_kinks as kinks
from nonsmooth.program import Program
from nonsmooth.studies.field_plot import plot_field

__version__ = "0.1.0"

__all__ = [
    "AbsNormal",
    "Audit",
    "Ball",
    "Bounds",
    "Certificate",
    "CertifiedStep",
    "Clarke",
    "Cone",
    "Cost",
    "Descent",
    "Extremum",
    "Field",
    "Gradcheck",
    "GradientVerdict",
    "Kind",
    "Kink",
    "Kinks",
    "Operation",
    "Potential",
    "Program",
    "Ranking",
    "Singularity",
    "Smoothed",
    "Subgradient",
    "Switch",
    "Watch",
    "__version__",
    "abs_normal",
    "at_kinks",
    "audit",
    "backprop",
    "ball_criticality",
    "bounds",
    "callbacks",
    "capture",
    "certified_step",
    "clarke",
    "coordinate_derivatives",
    "cost",
    "directional",
    "errors",
    "field",
    "forward_subgradient",
    "grad",
    "gradcheck",
    "implicit",
    "kinks",
    "lexicographic",
    "objective",
    "operations",
    "optim",
    "path_criticality",
    "piecewise_linear",
    "plot_field",
    "potential",
    "projected_gradient",
    "read_run",
    "register",
    "smooth",
    "subgradient",
    "value_and_backprop",
    "value_and_grad",
    "verdict",
    "watch",
]
