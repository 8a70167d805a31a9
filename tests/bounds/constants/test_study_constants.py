"""The constants of the study of batch normalisation that its page calls attained: average pooling, and norms of batch norm."""

from __future__ import annotations

from math import sqrt

import pytest

torch = pytest.importorskip("torch")
from nonsmooth.studies.batchnorm_constants import CONSTANTS  # noqa: E402

F = torch.nn.functional


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_average_pooling_attains_its_constant(side: int) -> None:
    """1/k, by images that are constant on each window; no image is sent further, and the printed 1 holds."""
    right, printed = (CONSTANTS[c].average(side) for c in ("right", "printed"))
    rng = torch.Generator().manual_seed(side)
    for _ in range(20):
        image = torch.randn(2, 3, 3 * side, 2 * side, generator=rng, dtype=torch.float64)
        assert F.avg_pool2d(image, side).norm() <= right * image.norm() * (1 + 1e-12)
        constant = image[..., ::side, ::side].repeat_interleave(side, 2).repeat_interleave(side, 3)
        assert float(F.avg_pool2d(constant, side).norm()) == pytest.approx(right * float(constant.norm()), rel=1e-12)
    assert right <= printed and (right < printed) == (side > 1)


@pytest.mark.parametrize("form", ["right", "slide"])
@pytest.mark.parametrize("eps", [1e-2, 1.0, 1e2])
def test_batch_norm_attains_the_bound_of_its_norm_in_the_limit(form: str, eps: float) -> None:
    """sqrt(d M): no batch exceeds it, and any batch without equal entries comes to it as it grows."""
    batch, channels, side = 4, 3, 5
    bound = CONSTANTS[form].batch_norm(eps, batch, channels, side * side)[2]
    assert bound == pytest.approx(sqrt(batch * channels * side * side))
    rng = torch.Generator().manual_seed(0)
    for _ in range(5):
        z = torch.randn(batch, channels, side, side, generator=rng, dtype=torch.float64)
        if form == "right":
            assert torch.allclose(_normalised(z, eps, form), F.batch_norm(z, None, None, None, None, True, 0.1, eps))
        norms = [float(_normalised(scale * z, eps, form).norm()) for scale in (1e-2, 1.0, 1e2, 1e6)]
        assert norms == sorted(norms) and norms[-1] <= bound and norms[-1] > 0.999 * bound
        assert CONSTANTS["printed"].batch_norm(eps, batch, channels, side * side)[2] >= bound


def _normalised(z: torch.Tensor, eps: float, form: str) -> torch.Tensor:
    """Give batch normalisation, or the slide's with eps beside the deviation."""
    u = z - z.mean((0, 2, 3), keepdim=True)
    variance = u.square().mean((0, 2, 3), keepdim=True)
    return u / (torch.sqrt(eps + variance) if form == "right" else eps + variance.sqrt())


@pytest.mark.parametrize("eps", [1e-2, 1.0])
def test_several_channels_and_pixels_have_the_constants_of_one_group(eps: float) -> None:
    """M = m n_p counts images and pixels; channels do not count: attained at equal entries, and along a line."""
    batch, channels, side = 2, 2, 2
    number = batch * side * side
    l, L, _ = CONSTANTS["right"].batch_norm(eps, batch, channels, side * side)
    z = torch.zeros(batch, channels, side, side, dtype=torch.float64)
    e = torch.zeros_like(z)
    e[:, 0] = torch.tensor([1.0, -1.0] * (number // 2), dtype=torch.float64).reshape(batch, side, side) / sqrt(number)

    def along(t: torch.Tensor) -> torch.Tensor:
        return _normalised(z + t * e, eps, "right")

    def first(t: torch.Tensor) -> torch.Tensor:
        return torch.func.jacfwd(along)(t)

    zero, half = (torch.tensor(t, dtype=torch.float64) for t in (0.0, sqrt(eps * number) / 2))
    assert float(first(zero).norm()) == pytest.approx(l, rel=1e-9)
    assert float(torch.func.jacfwd(first)(half).norm()) == pytest.approx(L, rel=1e-9)
