"""INNA as a torch.optim.Optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, _view_as_real

from nonsmooth.optim.inertial_newton import increments
from nonsmooth.optim.torch.inertial import Inertial, Lists, Number, blocks, decay, decay_all, is_plain, scalar

__all__ = ["INNA"]


class INNA(Inertial):
    """INNA, an inertial Newton algorithm that needs gradients only, as a `torch.optim.Optimizer`.

    psi_0 = (1 - alpha beta) theta_0; with gamma = lr and g the gradient at theta,

        theta <- (1 - gamma lambda) theta                                   lambda = weight_decay, 0 by default
        d = (alpha - 1/beta) theta + psi/beta
        theta <- theta - gamma (d + beta g),   psi <- psi - gamma d         both from the old values

    If the g_k are, in mean, elements of a conservative field of a tame loss (what backpropagation returns, also at kinks), the
    steps have infinite sum and are o(1/log k), alpha > 0, lambda = 0 and the iterates stay bounded, then every accumulation point
    is critical for that field. Status: `proved` for exact arithmetic; here it is that of the parameters' dtype. On quadratics
    `nonsmooth.optim.stable_step` gives the largest constant step. The state is one tensor a parameter, `psi`.

    Args:
        params: parameters, (name, parameter) pairs, or dicts of groups with hyper-parameters of their own.
        lr: the step gamma; a number or a tensor of one element. Let it decrease by any scheduler of torch, as gamma_0/(1 + k)^q:
            `LambdaLR(optimizer, lambda k: (1 + k) ** -q)`.
        alpha: the friction, >= 0, in units of 1/gamma; a number or a tensor of one element.
        beta: the Newton-like damping, > 0, in units of gamma; a number or a tensor of one element.
        weight_decay: lambda, decoupled from the gradient.
        foreach: one call for many tensors; None lets torch choose, as for its own optimisers.
        maximize: ascend.
        capturable: read no tensor back to Python, so that a CUDA graph can hold the step.
        differentiable: let autograd go through the step.

    Raises:
        UsageError: a hyper-parameter outside its range, `foreach` with `differentiable`, or (at a step) a sparse gradient.

    >>> import torch
    >>> import nonsmooth as ns
    >>> x = torch.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = ns.optim.INNA([x], lr=0.1, alpha=0.5, beta=0.1)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     (x**2 / 2).sum().backward()
    ...     optimizer.step()
    >>> x.detach()
    tensor([-0.0775,  0.1549])

    Source: Castera2021.
    """

    _hyperparameters = ("lr", "alpha", "beta", "weight_decay")
    _state_names = ("psi",)

    def __init__(
        self,
        params: ParamsT,
        lr: Number = 0.1,
        alpha: Number = 0.5,
        beta: Number = 0.1,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "alpha": alpha, "beta": beta, "weight_decay": weight_decay},
            {"foreach": foreach, "maximize": maximize, "capturable": capturable, "differentiable": differentiable},
        )

    def _update(self, group: dict[str, Any], lists: Lists, has_complex: bool) -> None:
        if has_complex:
            _view_as_real(*lists)
        if not self._uses_foreach(group, lists[0]):
            for theta, g, psi in zip(*lists, strict=True):
                _single(theta, g, psi, group)
            return
        grouped = Optimizer._group_tensors_by_device_and_dtype(lists)  # type: ignore[arg-type]
        for tensors, _ in grouped.values():
            for thetas, gs, psis in blocks(tensors):  # type: ignore[arg-type]
                _multi(thetas, gs, psis, group)


def _single(theta: Tensor, g: Tensor, psi: Tensor, group: dict[str, Any]) -> None:
    """Make the step of one tensor."""
    gamma, alpha, beta = (scalar(group[name], theta) for name in ("lr", "alpha", "beta"))
    if group["weight_decay"]:
        decay(theta, gamma * group["weight_decay"])
    if is_plain(group, gamma, alpha, beta):
        d = torch.add(psi, theta, alpha=alpha * beta - 1)  # beta d
        psi.add_(d, alpha=-gamma / beta)
        theta.add_(d, alpha=-gamma / beta).add_(g, alpha=gamma * beta if group["maximize"] else -gamma * beta)
    else:
        old = (theta.clone(), psi.clone()) if group["differentiable"] else (theta, psi)  # autograd keeps the old values
        of_theta, of_psi = increments(*old, -g if group["maximize"] else g, gamma=gamma, alpha=alpha, beta=beta)
        theta.add_(of_theta)
        psi.add_(of_psi)


def _multi(thetas: list[Tensor], gs: list[Tensor], psis: list[Tensor], group: dict[str, Any]) -> None:
    """Make the step of tensors of one device and dtype: in plain numbers, four passes over each."""
    gamma, alpha, beta = (scalar(group[name], thetas[0]) for name in ("lr", "alpha", "beta"))
    if group["weight_decay"]:
        decay_all(thetas, gamma * group["weight_decay"])
    if is_plain(group, gamma, alpha, beta):
        ds = torch._foreach_add(psis, thetas, alpha=alpha * beta - 1)
        torch._foreach_add_(psis, ds, alpha=-gamma / beta)
        torch._foreach_add_(thetas, ds, alpha=-gamma / beta)
        torch._foreach_add_(thetas, gs, alpha=gamma * beta if group["maximize"] else -gamma * beta)
    else:
        ds = torch._foreach_sub(psis, torch._foreach_mul(thetas, 1 - alpha * beta))
        torch._foreach_mul_(ds, gamma / beta)
        torch._foreach_sub_(psis, ds)
        torch._foreach_add_(ds, torch._foreach_mul(gs, -gamma * beta if group["maximize"] else gamma * beta))
        torch._foreach_sub_(thetas, ds)
