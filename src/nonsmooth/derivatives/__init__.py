"""Derivatives of programs that are not differentiable."""

from nonsmooth.derivatives.backprop import backprop, capture, grad, value_and_backprop, value_and_grad

__all__ = ["backprop", "capture", "grad", "value_and_backprop", "value_and_grad"]
