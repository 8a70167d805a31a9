"""Derivatives of solutions: fixed points, roots, minimisers, layers and flows, with a check of the theorem's condition.

The classes of a framework are loaded when they are asked for: `import nonsmooth` imports no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nonsmooth.implicit.cones.checked_layer import checked
    from nonsmooth.implicit.cones.cone_program import ConeProgram, ConeSolution
    from nonsmooth.implicit.cones.product import Cones
    from nonsmooth.implicit.cones.quadratic_program import QuadraticProgram, QuadraticSolution
    from nonsmooth.implicit.derivative_convergence import DerivativeConvergence
    from nonsmooth.implicit.diagnosis import Diagnosis
    from nonsmooth.implicit.flows.flow import Flow, FlowOptions, flow
    from nonsmooth.implicit.flows.report import FlowReport
    from nonsmooth.implicit.implicit_function import ImplicitFunction, argmin, diagnose, fixed_point, root
    from nonsmooth.implicit.jax.equilibrium import EquilibriumLayer, deep_equilibrium
    from nonsmooth.implicit.matrix_products import JointSpectralRadius, joint_spectral_radius
    from nonsmooth.implicit.momentum import HeavyBall, heavy_ball
    from nonsmooth.implicit.monotone import EquilibriumReport
    from nonsmooth.implicit.one_step_derivative import OneStep, OneStepBound, one_step
    from nonsmooth.implicit.options import Options
    from nonsmooth.implicit.sparse.active_set import Equicorrelation
    from nonsmooth.implicit.sparse.elastic_net import ElasticNet
    from nonsmooth.implicit.sparse.hyper_gradient import (
        HyperGradient,
        SolutionDerivative,
        differentiate_solution,
        hyper_gradient,
    )
    from nonsmooth.implicit.sparse.lasso import Lasso
    from nonsmooth.implicit.sparse.logistic import SparseLogistic
    from nonsmooth.implicit.sparse.path import SolutionPath, solution_path
    from nonsmooth.implicit.sparse.svm import LinearSVM
    from nonsmooth.implicit.sparse.tuned_elastic_net import TunedElasticNet
    from nonsmooth.implicit.sparse.tuned_lasso import TunedLasso
    from nonsmooth.implicit.sparse.tuned_logistic import TunedLogisticRegression
    from nonsmooth.implicit.sparse.tuned_svc import TunedLinearSVC
    from nonsmooth.implicit.sparse.tuner import Tuning, tune
    from nonsmooth.implicit.torch.equilibrium import DeepEquilibrium
    from nonsmooth.implicit.unrolled import Unrolled, unroll

__all__ = [
    "ConeProgram",
    "ConeSolution",
    "Cones",
    "DeepEquilibrium",
    "DerivativeConvergence",
    "Diagnosis",
    "ElasticNet",
    "Equicorrelation",
    "EquilibriumLayer",
    "EquilibriumReport",
    "Flow",
    "FlowOptions",
    "FlowReport",
    "HeavyBall",
    "HyperGradient",
    "ImplicitFunction",
    "JointSpectralRadius",
    "Lasso",
    "LinearSVM",
    "OneStep",
    "OneStepBound",
    "Options",
    "QuadraticProgram",
    "QuadraticSolution",
    "SolutionDerivative",
    "SolutionPath",
    "SparseLogistic",
    "TunedElasticNet",
    "TunedLasso",
    "TunedLinearSVC",
    "TunedLogisticRegression",
    "Tuning",
    "Unrolled",
    "argmin",
    "checked",
    "deep_equilibrium",
    "diagnose",
    "differentiate_solution",
    "fixed_point",
    "flow",
    "heavy_ball",
    "hyper_gradient",
    "joint_spectral_radius",
    "one_step",
    "root",
    "solution_path",
    "tune",
    "unroll",
]

_HOMES = {
    "ConeProgram": "nonsmooth.implicit.cones.cone_program",
    "ConeSolution": "nonsmooth.implicit.cones.cone_program",
    "Cones": "nonsmooth.implicit.cones.product",
    "QuadraticProgram": "nonsmooth.implicit.cones.quadratic_program",
    "QuadraticSolution": "nonsmooth.implicit.cones.quadratic_program",
    "checked": "nonsmooth.implicit.cones.checked_layer",
    "DeepEquilibrium": "nonsmooth.implicit.torch.equilibrium",
    "EquilibriumLayer": "nonsmooth.implicit.jax.equilibrium",
    "EquilibriumReport": "nonsmooth.implicit.monotone",
    "deep_equilibrium": "nonsmooth.implicit.jax.equilibrium",
    "DerivativeConvergence": "nonsmooth.implicit.derivative_convergence",
    "Diagnosis": "nonsmooth.implicit.diagnosis",
    "ElasticNet": "nonsmooth.implicit.sparse.elastic_net",
    "Equicorrelation": "nonsmooth.implicit.sparse.active_set",
    "Flow": "nonsmooth.implicit.flows.flow",
    "FlowOptions": "nonsmooth.implicit.flows.flow",
    "FlowReport": "nonsmooth.implicit.flows.report",
    "HeavyBall": "nonsmooth.implicit.momentum",
    "HyperGradient": "nonsmooth.implicit.sparse.hyper_gradient",
    "ImplicitFunction": "nonsmooth.implicit.implicit_function",
    "JointSpectralRadius": "nonsmooth.implicit.matrix_products",
    "Lasso": "nonsmooth.implicit.sparse.lasso",
    "LinearSVM": "nonsmooth.implicit.sparse.svm",
    "OneStep": "nonsmooth.implicit.one_step_derivative",
    "OneStepBound": "nonsmooth.implicit.one_step_derivative",
    "Options": "nonsmooth.implicit.options",
    "SolutionDerivative": "nonsmooth.implicit.sparse.hyper_gradient",
    "SolutionPath": "nonsmooth.implicit.sparse.path",
    "SparseLogistic": "nonsmooth.implicit.sparse.logistic",
    "TunedElasticNet": "nonsmooth.implicit.sparse.tuned_elastic_net",
    "TunedLasso": "nonsmooth.implicit.sparse.tuned_lasso",
    "TunedLinearSVC": "nonsmooth.implicit.sparse.tuned_svc",
    "TunedLogisticRegression": "nonsmooth.implicit.sparse.tuned_logistic",
    "Tuning": "nonsmooth.implicit.sparse.tuner",
    "Unrolled": "nonsmooth.implicit.unrolled",
    "argmin": "nonsmooth.implicit.implicit_function",
    "diagnose": "nonsmooth.implicit.implicit_function",
    "differentiate_solution": "nonsmooth.implicit.sparse.hyper_gradient",
    "fixed_point": "nonsmooth.implicit.implicit_function",
    "flow": "nonsmooth.implicit.flows.flow",
    "heavy_ball": "nonsmooth.implicit.momentum",
    "hyper_gradient": "nonsmooth.implicit.sparse.hyper_gradient",
    "joint_spectral_radius": "nonsmooth.implicit.matrix_products",
    "one_step": "nonsmooth.implicit.one_step_derivative",
    "root": "nonsmooth.implicit.implicit_function",
    "solution_path": "nonsmooth.implicit.sparse.path",
    "tune": "nonsmooth.implicit.sparse.tuner",
    "unroll": "nonsmooth.implicit.unrolled",
}
"""The module of every public name; no module of this folder may have the name of another object."""

_FOLDERS = ("projections",)
"""The folders that are namespaces of their own."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is asked for."""
    if name in _FOLDERS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, *_FOLDERS])
