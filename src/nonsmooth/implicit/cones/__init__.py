"""Cone programs and quadratic programs as functions that differentiate: solvers, residual, condition, layers."""
