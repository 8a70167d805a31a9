"""Derivatives of programs that are not differentiable."""

from nonsmooth.derivatives.backprop import backprop, capture, grad, value_and_backprop, value_and_grad
from nonsmooth.derivatives.eager import at_kinks

__all__ = ["at_kinks", "backprop", "capture", "grad", "value_and_backprop", "value_and_grad"]
