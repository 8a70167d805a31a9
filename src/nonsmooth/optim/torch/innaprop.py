"""INNAprop as a torch.optim.Optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, _get_scalar_dtype, _view_as_real

from nonsmooth.errors import UsageError
from nonsmooth.optim.adaptive_scaling import STEP_CONDITION, check_step, log_sigma, scaled, second_moment
from nonsmooth.optim.inertial_newton import increments
from nonsmooth.optim.torch.inertial import Inertial, Lists, Number, blocks, decay, decay_all, is_plain, scalar

__all__ = ["INNAprop"]


class INNAprop(Inertial):
    """INNAprop, INNA on gradients scaled as RMSprop does, as a `torch.optim.Optimizer`.

    psi_0 = (1 - alpha beta) theta_0, v_0 = 0; with gamma = lr, g the gradient at theta, k = 1, 2, ...

        theta <- (1 - gamma lambda) theta                                   lambda = weight_decay
        v <- sigma v + (1 - sigma) g^2,   h = g / (sqrt(v / (1 - sigma^k)) + eps)
        d = (alpha - 1/beta) theta + psi/beta
        theta <- theta - gamma (d + beta h),   psi <- psi - gamma d         both from the old values

    which is the paper's step in other words (it writes theta by the new psi and divides by beta - gamma). The paper asks for
    **gamma < beta**, and here that is checked at every step. No convergence is proved. The state is `psi`, `exp_avg_sq` and `step`.

    Args:
        params: parameters, (name, parameter) pairs, or dicts of groups with hyper-parameters of their own.
        lr: the step gamma, a number or a tensor of one element; less than beta, whatever a scheduler makes of it.
        alpha: the friction, >= 0, in units of 1/gamma; a number or a tensor of one element.
        beta: the Newton-like damping, > 0, in units of gamma; a number or a tensor of one element.
        sigma: how slowly the mean of squares forgets, in [0, 1).
        eps: added to the root of the mean of squares; in float16 take 1e-4 or more.
        weight_decay: lambda, decoupled from the gradient.
        foreach: one call for many tensors; None lets torch choose, as for its own optimisers.
        maximize: ascend.
        capturable: read no tensor back to Python, so that a CUDA graph can hold the step. That a tensor `lr` is below beta is then
            checked on the device, without waiting for it.
        differentiable: let autograd go through the step.

    Raises:
        UsageError: a hyper-parameter outside its range, lr >= beta, `foreach` with `differentiable`, or (at a step) a sparse
            gradient.

    >>> import torch
    >>> import nonsmooth as ns
    >>> x = torch.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = ns.optim.INNAprop([x], lr=0.01, alpha=0.5, beta=0.9, weight_decay=0.0)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     (x**2 / 2).sum().backward()
    ...     optimizer.step()
    >>> x.detach()
    tensor([-0.0698, -0.2259])

    Source: BolteBoustanyPauwelsPurica2024.
    """

    _hyperparameters = ("lr", "alpha", "beta", "sigma", "eps", "weight_decay")
    _state_names = ("psi", "exp_avg_sq", "step")

    def __init__(
        self,
        params: ParamsT,
        lr: Number = 1e-3,
        alpha: Number = 0.1,
        beta: Number = 0.9,
        sigma: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "alpha": alpha, "beta": beta, "sigma": sigma, "eps": eps, "weight_decay": weight_decay},
            {"foreach": foreach, "maximize": maximize, "capturable": capturable, "differentiable": differentiable},
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a saved state; a count of steps that is a plain number becomes a tensor."""
        super().__setstate__(state)
        for group in self.param_groups:
            for p in group["params"]:
                count = self.state.get(p, {}).get("step")
                if count is not None and not isinstance(count, Tensor):
                    self.state[p]["step"] = _count(group, p, float(count))

    def _check_group(self, i: int, group: dict[str, Any]) -> dict[str, float | None]:
        known = super()._check_group(i, group)
        check_step("INNAprop", f"parameter group {i}", lr=known["lr"], beta=known["beta"])
        if known["lr"] is None or known["beta"] is None:
            torch._assert_async(
                torch.as_tensor(group["lr"] < group["beta"]).squeeze(),
                f"INNAprop: {STEP_CONDITION}; found lr >= beta in parameter group {i}.",
            )
        return known

    def _start(self, group: dict[str, Any], p: Tensor, state: dict[str, Tensor]) -> None:
        super()._start(group, p, state)
        state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        state["step"] = _count(group, p, 0.0)

    def _update(self, group: dict[str, Any], lists: Lists, has_complex: bool) -> None:
        _check_counts(group, lists)
        if has_complex:
            _view_as_real(*lists[:4])
        if not self._uses_foreach(group, lists[0]):
            for theta, g, psi, v, count in zip(*lists, strict=True):
                _single(theta, g, psi, v, count, group)
            return
        grouped = Optimizer._group_tensors_by_device_and_dtype(lists)  # type: ignore[arg-type]
        for tensors, _ in grouped.values():
            for thetas, gs, psis, vs, counts in blocks(tensors):  # type: ignore[arg-type]
                _multi(thetas, gs, psis, vs, counts, group)


def _count(group: dict[str, Any], p: Tensor, value: float) -> Tensor:
    """Count steps beside the parameter if a graph is to hold them, else where Python reads them at once."""
    return torch.tensor(value, dtype=_get_scalar_dtype(), device=p.device if group["capturable"] else "cpu")


def _check_counts(group: dict[str, Any], lists: Lists) -> None:
    """Refuse a count that a captured graph would not see change."""
    if group["capturable"] and not torch.compiler.is_compiling():
        for p, count in zip(lists[0], lists[-1], strict=True):
            if count.device != p.device:
                raise UsageError(
                    f"INNAprop: with capturable=True the count of steps must be on {p.device}; found it on {count.device}. Set "
                    "capturable=True when the optimiser is made, or load its state_dict again."
                )


def _reads(group: dict[str, Any], *values: Number) -> bool:
    """Tell whether the step can be made in place by numbers that Python knows, the count of steps among them."""
    return is_plain(group, *values) and not group["capturable"] and not torch.compiler.is_compiling()


def _correction(count: Tensor, v: Tensor, sigma: float) -> Tensor:
    """Give 1 - sigma^k on the device, in the precision of v but in single precision at least."""
    return -torch.expm1(count.to(torch.promote_types(v.dtype, torch.float32)) * log_sigma(sigma))


def _calls_threads(v: Tensor) -> bool:
    """Tell whether sqrt calls threads for a tensor of any size, as it does on a CPU; 1/rsqrt, equal to rounding, does not."""
    return v.device.type == "cpu" and v.dtype in (torch.float32, torch.float64)


def _single(theta: Tensor, g: Tensor, psi: Tensor, v: Tensor, count: Tensor, group: dict[str, Any]) -> None:
    """Make the step of one tensor."""
    gamma, alpha, beta = (scalar(group[name], theta) for name in ("lr", "alpha", "beta"))
    sigma, eps = group["sigma"], group["eps"]
    count += 1
    if group["weight_decay"]:
        decay(theta, gamma * group["weight_decay"])
    if _reads(group, gamma, alpha, beta):
        root = (1 - sigma ** count.item()) ** 0.5
        v.mul_(sigma).addcmul_(g, g, value=1 - sigma)
        d = torch.add(psi, theta, alpha=alpha * beta - 1)  # beta d
        psi.add_(d, alpha=-gamma / beta)
        theta.add_(d, alpha=-gamma / beta)
        d = v.rsqrt().reciprocal_() if _calls_threads(v) else v.sqrt()
        theta.addcdiv_(g, d.add_(eps * root), value=gamma * beta * root if group["maximize"] else -gamma * beta * root)
    else:
        old = (theta.clone(), psi.clone()) if group["differentiable"] else (theta, psi)  # autograd keeps the old values
        moment = second_moment(v, g * g, sigma=sigma)
        v.copy_(moment)
        h = scaled(-g if group["maximize"] else g, moment, correction=_correction(count, v, sigma), eps=eps)
        of_theta, of_psi = increments(*old, h, gamma=gamma, alpha=alpha, beta=beta)
        theta.add_(of_theta)
        psi.add_(of_psi)


def _multi(
    thetas: list[Tensor],
    gs: list[Tensor],
    psis: list[Tensor],
    vs: list[Tensor],
    counts: list[Tensor],
    group: dict[str, Any],
) -> None:
    """Make the step of tensors of one device and dtype."""
    gamma, alpha, beta = (scalar(group[name], thetas[0]) for name in ("lr", "alpha", "beta"))
    if not _reads(group, gamma, alpha, beta):
        _multi_unread(thetas, gs, psis, vs, counts, group)
        return
    sigma, sign = group["sigma"], 1 if group["maximize"] else -1
    torch._foreach_add_(counts, 1)
    roots = [(1 - sigma ** count.item()) ** 0.5 for count in counts]
    if group["weight_decay"]:
        decay_all(thetas, gamma * group["weight_decay"])
    torch._foreach_mul_(vs, sigma)
    torch._foreach_addcmul_(vs, gs, gs, 1 - sigma)
    ds = torch._foreach_add(psis, thetas, alpha=alpha * beta - 1)
    torch._foreach_add_(psis, ds, alpha=-gamma / beta)
    torch._foreach_add_(thetas, ds, alpha=-gamma / beta)
    if _calls_threads(vs[0]):
        ds = torch._foreach_rsqrt(vs)
        torch._foreach_reciprocal_(ds)
    else:
        ds = torch._foreach_sqrt(vs)
    torch._foreach_add_(ds, [group["eps"] * root for root in roots])
    torch._foreach_addcdiv_(thetas, gs, ds, [sign * (gamma * beta * root) for root in roots])


def _multi_unread(
    thetas: list[Tensor],
    gs: list[Tensor],
    psis: list[Tensor],
    vs: list[Tensor],
    counts: list[Tensor],
    group: dict[str, Any],
) -> None:
    """Make the step of tensors of one device and dtype, without reading a number back."""
    gamma, alpha, beta = (scalar(group[name], thetas[0]) for name in ("lr", "alpha", "beta"))
    sigma = group["sigma"]
    torch._foreach_add_(counts, 1)
    if group["weight_decay"]:
        decay_all(thetas, gamma * group["weight_decay"])
    torch._foreach_mul_(vs, sigma)
    torch._foreach_addcmul_(vs, gs, gs, 1 - sigma)
    hs = torch._foreach_sqrt(vs)
    corrections = [_correction(count, v, sigma) for count, v in zip(counts, vs, strict=True)]
    torch._foreach_div_(hs, torch._foreach_sqrt(corrections))
    torch._foreach_add_(hs, group["eps"])
    hs = torch._foreach_div(gs, hs)
    ds = torch._foreach_sub(psis, torch._foreach_mul(thetas, 1 - alpha * beta))
    torch._foreach_mul_(ds, gamma / beta)
    torch._foreach_sub_(psis, ds)
    torch._foreach_mul_(hs, gamma * beta if group["maximize"] else -gamma * beta)
    torch._foreach_sub_(thetas, ds)
    torch._foreach_add_(thetas, hs)
