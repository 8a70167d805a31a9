"""The projection of symmetric matrices on the semidefinite cone in torch, with its own derivative, and constants."""

from __future__ import annotations

from typing import Any

import torch

from nonsmooth.implicit.projections.semidefinite_cone import divided_differences

__all__ = ["constant", "spectral_projection"]


def constant(z: torch.Tensor) -> torch.Tensor:
    """Give a tensor as one that is not differentiated."""
    return z.detach()


class SemidefiniteProjection(torch.autograd.Function):
    """V max(0, L) V', differentiated by divided differences; twice only where no eigenvalue repeats."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: torch.Tensor) -> torch.Tensor:
        """Cut the eigenvalues off."""
        values, vectors = torch.linalg.eigh(z)
        found: torch.Tensor = (vectors * values.clamp(min=0)[..., None, :]) @ vectors.mT
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        """Keep the matrix."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> torch.Tensor:
        """Apply the derivative, which is symmetric."""
        (z,) = ctx.saved_tensors
        return derivative(z, cotangent)

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor) -> torch.Tensor:
        """Apply the derivative."""
        (z,) = ctx.saved_tensors
        return derivative(z, tangent)


def derivative(z: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Give V (G * V' H V) V' for the symmetric part H of a direction."""
    values, vectors = torch.linalg.eigh(z)
    symmetric = (direction + direction.mT) / 2
    found: torch.Tensor = vectors @ (divided_differences(values) * (vectors.mT @ symmetric @ vectors)) @ vectors.mT
    return found


def spectral_projection(z: torch.Tensor) -> torch.Tensor:
    """Project symmetric matrices."""
    return SemidefiniteProjection.apply(z)  # type: ignore[no-any-return]
