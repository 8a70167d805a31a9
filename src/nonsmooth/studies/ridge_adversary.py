"""Adversarial training of a small classifier of the digits, by the ridge method, beside plain training.

    min over weights x of max { mean over samples i of loss(x, image_i + y_i) : |y_i| <= eps, image_i + y_i in [0, 1] }

The perturbations are found by projected ascent along signs. What a maximiser should satisfy is measured: how far the
derivative w_i of each sample is from the normal cone of its box, and what the partial derivative leaves out at kinks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nonsmooth.derivatives.backprop import capture
from nonsmooth.optim.constraints import Box
from nonsmooth.optim.ridge_step import RidgeDirection, ridge_direction
from nonsmooth.optim.schedules import PowerSchedule
from nonsmooth.report.progress import Report

__all__ = ["Adversary", "AttackCheck", "Robustness", "TrainingDirections"]

RADIUS = 0.1
"""How far a pixel may be moved in training, in units of the full range."""

RADII = (0.0, 0.05, 0.1, 0.15, 0.2)
"""The radii at which the networks are attacked."""

ASCENT = 10
"""Steps of an attack in training; twice as many in testing."""

SETTLING = 200
"""Further steps of the attack that is checked, each shorter by the factor SHRINK."""

SHRINK = 0.95

SETTLED = 1e-3
"""A sample is settled if w_i is this near to its normal cone, relative to its length."""

ROUNDING = 1e-5
"""A relative difference below it is rounding of single precision."""

STEP = PowerSchedule(0.5, 0.6, delay=100)
"""The step sizes."""


@dataclass(frozen=True)
class Robustness:
    """The share of held-out images that a network names rightly, attacked within each radius."""

    network: str
    radii: tuple[float, ...]
    accuracy: tuple[float, ...]
    loss: float
    status: str = "computed"


@dataclass(frozen=True)
class AttackCheck:
    """What a maximiser should satisfy, at the result of an attack on some images.

    Attributes:
        attack: what was checked: "as in training", or "settled", with steps that shrink.
        near: the distance within which kinks were counted as active.
        kinks: how many there were.
        residual: the distance of w from the normal cone, relative to the length of w.
        samples: the same for each image.
        partial_error: how far the partial derivative is from v, relative to the length of v.
        status: of the direction, with the tolerance for single precision.
    """

    attack: str
    near: float
    kinks: int
    residual: float
    samples: tuple[float, ...]
    partial_error: float
    status: str

    @property
    def settled(self) -> float:
        """The share of the images whose w is within `SETTLED` of its normal cone."""
        return float(np.mean(np.array(self.samples) <= SETTLED))


@dataclass(frozen=True)
class TrainingDirections:
    """The directions of a training by the ridge method: how many there were of each status, and how many met a kink.

    Attributes:
        computed, refuted, undecided: how many directions; the tolerance is that of single precision.
        with_kinks: at how many steps a kink was active, so that the partial derivative may differ.
        differing: at how many it did, by more than rounding.
    """

    computed: int
    refuted: int
    undecided: int
    with_kinks: int
    differing: int


class Adversary:
    """The digits, a network, and its attacks; all draws come from the generator of torch, which the caller keeps."""

    def __init__(self, images: Any, labels: Any, held_out: Any, answers: Any, width: int) -> None:
        import torch

        self.images, self.labels, self.held_out, self.answers = images, labels, held_out, answers
        self.model = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10))
        self.met: list[RidgeDirection] = []
        self.start = {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def loss(self, x: Any, y: Any, images: Any, labels: Any) -> Any:
        """Give F(x, y): the mean cross-entropy of perturbed images."""
        import torch

        scores = torch.func.functional_call(self.model, x, (images + y,))
        return torch.nn.functional.cross_entropy(scores, labels)

    def bounds(self, images: Any, radius: float) -> tuple[Any, Any]:
        """Give the box of the perturbations."""
        return (-images).clamp(min=-radius), (1 - images).clamp(max=radius)

    def attack(self, x: Any, images: Any, labels: Any, radius: float, steps: int, settling: int = 0) -> Any:
        """Climb along the signs of the derivative, within the box; then with steps that shrink."""
        import torch

        low, high = self.bounds(images, radius)
        y, slope = torch.zeros_like(images), torch.func.grad(self.loss, argnums=1)
        for k in range(steps + settling):
            length = radius / 4 * SHRINK ** max(0, k - steps)
            y = torch.minimum(torch.maximum(y + length * slope(x, y, images, labels).sign(), low), high)
        return y

    def train(self, steps: int, batch: int, robust: bool, report: Report) -> Iterator[tuple[int, Any]]:
        """Train, plainly or against the attack by the ridge method; give the weights before every step and at the end."""
        import torch

        x, program = self.start, None
        word = "against attacks" if robust else "plainly"
        for k in range(steps):
            yield k, x
            chosen = torch.randperm(len(self.images))[:batch]
            images, labels = self.images[chosen], self.labels[chosen]
            if robust:
                y = self.attack(x, images, labels, RADIUS, ASCENT)
                if program is None:
                    program = capture(lambda xy, *data: self.loss(*xy, *data), (x, y), images, labels)
                box = Box(*self.bounds(images, RADIUS))
                self.met.append(ridge_direction(program, x, y, box, data=(images, labels)))
                v = self.met[-1].v
            else:
                v = torch.func.grad(self.loss)(x, torch.zeros_like(images), images, labels)
            x = {name: p - STEP(k) * v[name] for name, p in x.items()}
            report(f"training {word}, step {k + 1:,} of {steps:,}", k + 1, steps)
        yield steps, x

    def directions(self) -> TrainingDirections:
        """Count the directions met in training."""
        words = [found.status for found in self.met]
        known = [found.certificate for found in self.met]
        differing = sum(c.partial_error > ROUNDING * float(c.norm) for c in known)
        return TrainingDirections(
            computed=words.count("computed"),
            refuted=words.count("refuted"),
            undecided=words.count("undecided"),
            with_kinks=sum(c.kinks > 0 for c in known),
            differing=differing,
        )

    def robustness(self, network: str, x: Any) -> Robustness:
        """Attack a network on the held-out images."""
        import torch

        found = []
        for radius in RADII:
            y = self.attack(x, self.held_out, self.answers, radius, 2 * ASCENT if radius else 0)
            scores = torch.func.functional_call(self.model, x, (self.held_out + y,))
            found.append(float((scores.argmax(1) == self.answers).double().mean()))
        clean = float(self.loss(x, torch.zeros_like(self.held_out), self.held_out, self.answers))
        return Robustness(network, RADII, tuple(found), clean)

    def check(self, x: Any, samples: int, near: float, settling: int) -> AttackCheck:
        """Measure how far w is from the normal cone, image by image."""
        images, labels = self.images[:samples], self.labels[:samples]
        y = self.attack(x, images, labels, RADIUS, ASCENT, settling)
        box = Box(*self.bounds(images, RADIUS))
        found = ridge_direction(lambda x, y: self.loss(x, y, images, labels), x, y, box, near=near)
        w = np.asarray(found.w.numpy(), dtype=np.float64)
        away = box.normal_cone(np.asarray(y.numpy(), dtype=np.float64), 1e-4).polar_part(w.ravel()).reshape(w.shape)
        lengths = np.maximum(np.linalg.norm(w, axis=1), 1e-300)
        return AttackCheck(
            "settled" if settling else "as in training",
            near,
            found.certificate.kinks,
            float(found.residual) / max(float(np.linalg.norm(w)), 1e-300),
            tuple(float(s) for s in np.linalg.norm(away, axis=1) / lengths),
            found.certificate.partial_error / max(float(found.certificate.norm), 1e-300),
            found.status,
        )
