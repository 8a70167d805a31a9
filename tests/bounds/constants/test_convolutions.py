"""Constants of convolutions: they hold for all strides, paddings, dilations and groups, and the kernel's norm is close."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from nonsmooth.bounds.constants.convolutions import Kernel, convolution_norm, most_windows
from nonsmooth.bounds.reach import Reach
from nonsmooth.program.windows import meetings
from tests.bounds.constants.one_step import OneStep, box, holds, moving

torch = pytest.importorskip("torch")
F = torch.nn.functional


def _step(rng: np.random.Generator, kind: str, known: bool = True, radius: float = 0.0, **options: Any) -> OneStep:
    """Give a convolution of some kind with random operands."""
    d, groups, transposed = int(kind[-1]), options.get("groups", 1), "transpose" in kind
    size = {1: 9, 2: 5, 3: 3}[d]
    kernel = options.pop("kernel", 3 if d < 3 else 2)
    weight = (2, 4 // groups, *(kernel,) * d) if transposed else (4, 2 // groups, *(kernel,) * d)
    shapes = [(2, 2, *(size,) * d), weight, (4,)]
    arrays = [rng.normal(size=s) for s in shapes]
    function = getattr(torch.nn.functional, f"conv{'_transpose' if transposed else ''}{d}d")
    return OneStep("torch", lambda x, w, b: function(x, w, b, **options), arrays, radius, known)


GEOMETRIES: list[tuple[str, dict[str, Any]]] = [
    ("conv1", {}),
    ("conv1", {"stride": 2, "padding": 1}),
    ("conv1", {"stride": 2, "dilation": 2, "padding": 2}),
    ("conv1", {"stride": 3, "kernel": 2}),
    ("conv1", {"stride": 2, "dilation": 3, "padding": 1}),
    ("conv1", {"groups": 2, "padding": 1}),
    ("conv1", {"kernel": 9}),
    ("conv2", {"padding": 1}),
    ("conv2", {"stride": (2, 1), "padding": (0, 1)}),
    ("conv2", {"groups": 2, "dilation": 2}),
    ("conv3", {"padding": 1, "stride": 2}),
    ("conv_transpose1", {}),
    ("conv_transpose1", {"stride": 2, "padding": 1}),
    ("conv_transpose1", {"stride": 2, "dilation": 3, "output_padding": 1}),
    ("conv_transpose2", {"stride": 2, "groups": 2}),
]


@pytest.mark.parametrize("radius", [0.0, 0.5])
@pytest.mark.parametrize(("kind", "options"), GEOMETRIES)
def test_a_convolution_in_torch(kind: str, options: dict[str, Any], radius: float) -> None:
    rng = np.random.default_rng(5)
    step = _step(rng, kind, radius=radius, **options)
    local = holds(step, rng, samples=2)
    positions = np.prod(step.shaped.results[0]) / 4
    assert local.lipschitz[2] == pytest.approx(np.sqrt(positions))
    assert local.lipschitz[2] == pytest.approx(step.slope(2, step.arrays), rel=1e-9)
    loose = [u.norm for u in step.reaches]
    assert local.lipschitz[0] <= local.smoothness[0, 1] * loose[1] * (1 + 1e-12)


@pytest.mark.parametrize(("kind", "options"), GEOMETRIES)
def test_a_convolution_of_which_norms_alone_are_known(kind: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    step = _step(rng, kind, known=False, **options)
    local = step.local()
    value = step.value(*step.arrays)
    assert step.slope(0, step.arrays) <= local.lipschitz[0] and step.slope(1, step.arrays) <= local.lipschitz[1]
    assert np.linalg.norm(value) <= local.norm and np.all(np.abs(value) <= float(np.asarray(local.high)))


@pytest.mark.parametrize(("kind", "options"), [g for g in GEOMETRIES if g[0].endswith("1")])
def test_the_constant_of_norms_is_that_of_the_trilinear_form(kind: str, options: dict[str, Any]) -> None:
    """A constant image and kernel come near it; no pair that alternating maximisation finds is above."""
    rng = np.random.default_rng(0)
    step = _step(rng, kind, **options)
    c = step.local().smoothness[0, 1]
    best = 0.0
    for _ in range(3):
        x, w, b = (rng.normal(size=a.shape) for a in step.arrays)
        b = b * 0
        for _ in range(30):
            x, w = x / np.linalg.norm(x), w / np.linalg.norm(w)
            y = step.value(x, w, b)
            best = max(best, float(np.linalg.norm(y)))
            x = step.backend.pull(step.f, (x, w, b), y)[0]
            x = x / np.linalg.norm(x)
            w = step.backend.pull(step.f, (x, w, b), step.value(x, w, b))[1]
    assert best <= c * (1 + 1e-9)
    assert best >= 0.7 * c


def test_a_constant_kernel_on_a_long_image_attains_the_constant() -> None:
    x = np.ones((1, 1, 400)) / 20
    w = np.ones((1, 1, 3)) / np.sqrt(3)
    step = OneStep("torch", lambda x, w: F.conv1d(x, w), [x, w])
    assert np.linalg.norm(step.value(x, w)) >= 0.99 * step.local().smoothness[0, 1]


def test_a_bias_moves_every_position_of_every_image() -> None:
    rng = np.random.default_rng(0)
    step = _step(rng, "conv2", padding=1)
    assert step.local().lipschitz[2] == pytest.approx(np.sqrt(2 * 25))


@pytest.mark.parametrize(("stride", "dilation", "kernel"), list(product((1, 2, 3), (1, 2, 3), (1, 2, 3, 4))))
def test_windows_per_pixel(stride: int, dilation: int, kernel: int) -> None:
    met = meetings(80, kernel, stride, (3, 2), 1, dilation).per_entry
    assert met == most_windows(kernel, stride, dilation)


@pytest.mark.parametrize(("stride", "dilation"), list(product((1, 2, 3), (1, 2, 3))))
def test_the_norm_by_frequencies_is_that_of_large_images(stride: int, dilation: int) -> None:
    rng = np.random.default_rng(stride + 5 * dilation)
    array = rng.normal(size=(2, 3, 3))
    step = OneStep("torch", lambda x, w: F.conv1d(x, w, stride=stride, dilation=dilation), [np.ones((1, 3, 60)), array])
    exact = step.slope(0, [np.ones((1, 3, 60)), array])
    bound = convolution_norm(Kernel(array[None], (stride,), (dilation,)))
    assert exact <= bound <= 1.02 * exact


@pytest.mark.parametrize("size", [(3, 2, 2, 2), (2, 2, 3, 3), (1, 1, 1, 1), (1, 1, 3, 2)])
def test_the_norm_by_frequencies_in_two_dimensions(size: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(size))
    array = rng.normal(size=size)
    circular = np.fft.fft2(array, (24, 24)).transpose(2, 3, 0, 1)
    exact = float(np.linalg.norm(circular, 2, axis=(2, 3)).max())
    kernel = Kernel(array[None], (1, 1), (1, 1))
    assert exact * (1 - 1e-12) <= convolution_norm(kernel) <= 1.02 * exact
    coarse = convolution_norm(kernel, budget=1.0)
    assert coarse == np.inf or coarse >= exact * (1 - 1e-12)


@pytest.mark.parametrize("finer", [1e3, 1e4, 1e5])
def test_a_coarse_grid_is_no_less_safe(finer: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        array = rng.normal(size=(2, 2, 4))
        exact = float(np.linalg.norm(np.fft.fft(array, 4096).transpose(2, 0, 1), 2, axis=(1, 2)).max())
        assert convolution_norm(Kernel(array[None], (1,), (1,)), finer) >= exact * (1 - 1e-12)


def test_intervals_of_pixels() -> None:
    rng = np.random.default_rng(0)
    for radius in (0.0, 0.3):
        step = _step(rng, "conv2", radius=radius, padding=1)
        x, w, b = step.arrays
        places: list[Reach] = [
            box(x - rng.random(x.shape), x + 0.2, 0, 3),
            moving(w, radius, 1, 3),
            moving(b, radius, 2, 3),
        ]
        boxed = OneStep("torch", step.f, step.arrays, operands=places)
        boxed.f = step.f
        local = holds(boxed, rng, samples=10)
        assert np.asarray(local.low).shape == step.shaped.results[0]


def test_one_interval_of_pixels_stays_one() -> None:
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(4, 2, 3, 3)), rng.normal(size=4)
    pixels = Reach((2, 2, 5, 5), 100.0, np.array([1.0, 0, 0]), np.zeros((3, 3)), np.asarray(0.0), np.asarray(1.0))
    places = [pixels, moving(w, 0.0, 1, 3), moving(b, 0.0, 2, 3)]
    step = OneStep(
        "torch", lambda x, w, b: F.conv2d(x, w, b, padding=1), [rng.random((2, 2, 5, 5)), w, b], operands=places
    )
    local = holds(step, rng, samples=20)
    assert np.asarray(local.low).shape == () == np.asarray(local.high).shape
    most = (np.maximum(w, 0).sum((1, 2, 3))).max() + b.max()
    assert float(np.asarray(local.high)) <= most + 1e-9


@pytest.mark.parametrize("layout", [("NCHW", "OIHW", "NCHW"), ("NHWC", "HWIO", "NHWC"), ("NHWC", "IWHO", "NCHW")])
@pytest.mark.parametrize(
    "options", [{}, {"window_strides": (2, 1)}, {"lhs_dilation": (2, 2)}, {"rhs_dilation": (2, 1)}]
)
def test_a_convolution_in_jax(layout: tuple[str, str, str], options: dict[str, Any]) -> None:
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(2)
    sizes = {"N": 2, "C": 2, "H": 4, "W": 5}
    kernels = {"O": 3, "I": 2, "H": 3, "W": 2}
    arrays = [
        rng.normal(size=tuple(sizes[c] for c in layout[0])),
        rng.normal(size=tuple(kernels[c] for c in layout[1])),
    ]
    chosen = {"window_strides": (1, 1), **options}

    def convolve(x: Any, w: Any) -> Any:
        return jax.lax.conv_general_dilated(x, w, padding=((1, 1), (0, 1)), dimension_numbers=layout, **chosen)

    step = OneStep("jax", convolve, arrays, name="convolution")
    local = holds(step, rng, samples=1)
    assert local.lipschitz[0] <= 1.6 * step.slope(0, arrays)


def test_convolutions_of_time_batch_channel() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in [(6, 2, 3), (2, 3, 4), (4,)]]
    holds(OneStep("torch", lambda x, w, b: torch.conv_tbc(x, w, b, 1), arrays, 0.2), rng)
