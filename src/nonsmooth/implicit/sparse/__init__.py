"""Sparse linear models and support vector machines: derivatives of their solutions in the hyper-parameters, and tuning."""
