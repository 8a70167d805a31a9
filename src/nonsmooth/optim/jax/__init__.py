"""The optimisers as gradient transformations of optax."""
