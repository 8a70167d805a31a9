"""How a framework writes what advice is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Spelling", "spelling"]


@dataclass(frozen=True)
class Spelling:
    """The words of a framework.

    Attributes:
        package: where its functions are; `elsewhere` those that are in another place.
        draw: how small random values are drawn.
        clamp: how x is kept above eps, and `unit` how x / width is kept in [0, 1].
        magnitude: |x|.
        soft_threshold, joined_threshold: continuous variants of hardshrink and of threshold.
        logits: the cross entropy of logits.
        branch: what branches on data is called; `detached` what cuts a derivative, `detach` the call.
        opaque: how a function gets a derivative of its user's own.
    """

    package: str
    draw: str
    clamp: str
    unit: str
    bounded: str
    magnitude: str
    soft_threshold: str
    joined_threshold: str
    logits: str
    branch: str
    detach: str
    detached: str
    opaque: str
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def call(self, name: str) -> str:
        """Give the name of a function as it is written.

        >>> spelling("jax").call("sqrt"), spelling("jax").call("erfinv"), spelling("torch").call("erfinv")
        ('jnp.sqrt', 'jax.scipy.special.erfinv', 'torch.erfinv')
        """
        return self.elsewhere.get(name, f"{self.package}.{name}")

    def cut(self, formula: str) -> str:
        """Write a formula through which no derivative passes.

        >>> spelling("torch").cut("y - x"), spelling("jax").cut("y - x")
        ('(y - x).detach()', 'stop_gradient(y - x)')
        """
        if not self.detach.startswith("."):
            return f"{self.detach}({formula})"
        return f"{formula if formula.isidentifier() else f'({formula})'}{self.detach}"


_SPECIAL = {name: f"jax.scipy.special.{name}" for name in ("erfinv", "logit", "xlogy", "xlog1py", "entr")}

_SPELLINGS = {
    "torch": Spelling(
        package="torch",
        draw="torch.nn.init.uniform_, -0.01 to 0.01",
        clamp="x.clamp(min=eps)",
        unit="(x / width).clamp(0, 1)",
        bounded="b.clamp(min=eps)",
        magnitude="x.abs()",
        soft_threshold="torch.nn.functional.softshrink",
        joined_threshold="torch.nn.functional.threshold(x, t, t)",
        logits="binary_cross_entropy_with_logits",
        branch="an `if`",
        detach=".detach()",
        detached="detached",
        opaque="torch.autograd.Function",
    ),
    "jax": Spelling(
        package="jnp",
        draw="jax.random.uniform, minval=-0.01, maxval=0.01",
        clamp="jnp.maximum(x, eps)",
        unit="jnp.clip(x / width, 0, 1)",
        bounded="jnp.maximum(b, eps)",
        magnitude="jnp.abs(x)",
        soft_threshold="jnp.sign(x) * jax.nn.relu(jnp.abs(x) - lambd)",
        joined_threshold="jnp.maximum(x, t)",
        logits="optax.sigmoid_binary_cross_entropy",
        branch="a `lax.cond`",
        detach="stop_gradient",
        detached="under stop_gradient",
        opaque="jax.custom_vjp",
        elsewhere={
            **_SPECIAL,
            "rsqrt": "jax.lax.rsqrt",
            "pow": "jnp.power",
            "sigmoid": "jax.nn.sigmoid",
            "clamp": "jnp.clip",
        },
    ),
}


def spelling(framework: str) -> Spelling:
    """Give the words of a framework; torch's for one that has none."""
    return _SPELLINGS.get(framework, _SPELLINGS["torch"])
