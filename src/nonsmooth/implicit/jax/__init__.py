"""Implicit functions of jax arrays."""
