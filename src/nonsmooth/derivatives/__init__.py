"""Derivatives of programs that are not differentiable."""

from nonsmooth.derivatives.backprop import backprop, capture, grad, value_and_backprop, value_and_grad
from nonsmooth.derivatives.directional import coordinate_derivatives, directional
from nonsmooth.derivatives.eager import at_kinks
from nonsmooth.derivatives.lexicographic import forward_subgradient, lexicographic
from nonsmooth.derivatives.subgradient import Certificate, Subgradient, subgradient

__all__ = [
    "Certificate",
    "Subgradient",
    "at_kinks",
    "backprop",
    "capture",
    "coordinate_derivatives",
    "directional",
    "forward_subgradient",
    "grad",
    "lexicographic",
    "subgradient",
    "value_and_backprop",
    "value_and_grad",
]
