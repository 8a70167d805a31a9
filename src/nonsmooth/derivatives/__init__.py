"""Derivatives of programs that are not differentiable."""

from nonsmooth.derivatives.abs_normal import AbsNormal, abs_normal
from nonsmooth.derivatives.backprop import backprop, capture, grad, value_and_backprop, value_and_grad
from nonsmooth.derivatives.clarke import Clarke, clarke
from nonsmooth.derivatives.directional import coordinate_derivatives, directional
from nonsmooth.derivatives.eager import at_kinks
from nonsmooth.derivatives.field import Field, field
from nonsmooth.derivatives.gradcheck import Gradcheck, gradcheck
from nonsmooth.derivatives.lexicographic import forward_subgradient, lexicographic
from nonsmooth.derivatives.potential import Potential, potential
from nonsmooth.derivatives.subgradient import Certificate, Subgradient, subgradient
from nonsmooth.derivatives.verdict import GradientVerdict, verdict

__all__ = [
    "AbsNormal",
    "Certificate",
    "Clarke",
    "Field",
    "Gradcheck",
    "GradientVerdict",
    "Potential",
    "Subgradient",
    "abs_normal",
    "at_kinks",
    "backprop",
    "capture",
    "clarke",
    "coordinate_derivatives",
    "directional",
    "field",
    "forward_subgradient",
    "grad",
    "gradcheck",
    "lexicographic",
    "potential",
    "subgradient",
    "value_and_backprop",
    "value_and_grad",
    "verdict",
]
