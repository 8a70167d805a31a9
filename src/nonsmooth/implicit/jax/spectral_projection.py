"""The projection of symmetric matrices on the semidefinite cone in JAX, with its own derivative, and constants."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from nonsmooth.implicit.projections.semidefinite_cone import divided_differences

__all__ = ["constant", "spectral_projection"]


def constant(z: jax.Array) -> jax.Array:
    """Give an array as one that is not differentiated."""
    return jax.lax.stop_gradient(z)


@jax.custom_jvp
def spectral_projection(z: jax.Array) -> jax.Array:
    """Project symmetric matrices."""
    values, vectors = jnp.linalg.eigh(z, symmetrize_input=False)
    found: jax.Array = (vectors * jnp.maximum(values, 0)[..., None, :]) @ vectors.mT
    return found


@spectral_projection.defjvp
def _derivative(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Give V max(0, L) V' and V (G * V' H V) V', H the symmetric part of the tangent."""
    (z,), (direction,) = primals, tangents
    values, vectors = jnp.linalg.eigh(z, symmetrize_input=False)
    inner = divided_differences(values) * (vectors.mT @ ((direction + direction.mT) / 2) @ vectors)
    return (vectors * jnp.maximum(values, 0)[..., None, :]) @ vectors.mT, vectors @ inner @ vectors.mT
