"""Implicit functions of torch tensors."""
