"""Lipschitz and smoothness bounds: of operations, of programs, and what follows from them."""
