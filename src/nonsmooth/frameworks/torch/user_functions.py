"""A user's `autograd.Function`: one opaque step with its own backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from nonsmooth.errors import CaptureError, RandomnessError
from nonsmooth.frameworks.torch.protection import preserved, refusal
from nonsmooth.frameworks.torch.tree import runs_alone

__all__ = ["OutputOf", "about_function", "undisturbed"]


@dataclass(frozen=True)
class OutputOf:
    """What a user's function returns at one place: a number beside its tensors, which Python has seen."""

    function: Any
    place: int

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function again."""
        with torch.no_grad():
            result = self.function.apply(*args, **kwargs)
        return result[self.place] if isinstance(result, tuple | list) else result


@contextmanager
def undisturbed(name: str, tensors: list[torch.Tensor], is_outside: Callable[[torch.Tensor], bool]) -> Iterator[None]:
    """Refuse a user's function that changes its arguments or draws random numbers; tensors from outside stay as they are.

    Raises:
        CaptureError: an argument was changed in place. RandomnessError: a random number was drawn.
    """
    with unset_fake_temporarily():
        versions, generator = [t._version for t in tensors], torch.get_rng_state()
    with preserved([t for t in tensors if is_outside(t)]):
        yield
        if [t._version for t in tensors] != versions:
            found = f"the autograd.Function `{name}` changes its arguments in place"
            raise refusal(CaptureError, found, "return a new tensor")
    with unset_fake_temporarily():
        drawn = not torch.equal(generator, torch.get_rng_state()) and runs_alone()
        if drawn:
            torch.set_rng_state(generator)
    if drawn:
        found = f"the autograd.Function `{name}` draws random numbers, which cannot be frozen"
        raise refusal(RandomnessError, found, "draw them before and pass them to it")


def about_function(cls: Any) -> tuple[str, str, str]:
    """Say what a user's function means for a program: rule, message and advice of a finding."""
    if cls.__module__.startswith("torch.nn.modules"):
        message = "a module has a hook on its backward pass, which the program does not run"
        return "hook", message, "remove the hook while the function is studied"
    message = f"`{cls.__name__}.apply` brings its own backward, which is used as it is"
    return "opaque", message, "its kinks cannot be seen: register it, or write it with torch's operators"
