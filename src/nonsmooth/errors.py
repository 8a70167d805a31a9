"""Every error of the library: what was asked, what was found and on which line, and what to do.

::

    NonsmoothError
    ├── UsageError               the call itself cannot be served
    │   ├── PointError           the point is no tree of finite floating tensors
    │   ├── ResultError          the function returns no scalar where one is needed
    │   └── ConventionError      an `at_kinks=` that means nothing here
    ├── CaptureError             the function could not be turned into a program
    │   ├── UnlistedOperation    an operator that the dictionary does not list
    │   ├── ChangedInput         the function changes what it was given
    │   ├── RandomnessError      the function draws random numbers
    │   └── ProofFailed          the program does not reproduce the function
    ├── GradcheckError           a derivative is refuted
    ├── NoField                  no set of derivatives exists at the point: a jump, a singular point
    ├── NoDerivative             there is no one-sided derivative, or none can be decided
    ├── NotMaximal               a point was said to maximise, and does not, or that cannot be told
    ├── NotConverged             a solver has not solved its equation
    ├── NotInvertible            an equation does not define its solution as a function: an element is singular
    ├── GridError                runs of a grid failed, or its cluster was lost
    ├── StaleProgram             a guard or an escaped value differs at the new point
    └── RegistrationError        a record of the dictionary contradicts itself
"""

from __future__ import annotations

__all__ = [
    "CaptureError",
    "ChangedInput",
    "ConventionError",
    "GradcheckError",
    "GridError",
    "ImplicitWarning",
    "NoDerivative",
    "NoField",
    "NonsmoothError",
    "NotConverged",
    "NotInvertible",
    "NotMaximal",
    "PointError",
    "ProofFailed",
    "RandomnessError",
    "RegistrationError",
    "ResultError",
    "StaleProgram",
    "UnlistedOperation",
    "UsageError",
]


class NonsmoothError(Exception):
    """The root of all errors of this library."""


class UsageError(NonsmoothError, ValueError):
    """The call itself cannot be served."""


class PointError(UsageError):
    """The point is no tree of finite floating tensors."""


class ResultError(UsageError):
    """The function returns no scalar where one is needed."""


class ConventionError(UsageError):
    """An `at_kinks=` that means nothing here."""


class CaptureError(NonsmoothError, RuntimeError):
    """The function could not be turned into a program."""


class UnlistedOperation(CaptureError):
    """An operator that the dictionary does not list."""


class ChangedInput(CaptureError):
    """The function changes what it was given."""


class RandomnessError(CaptureError):
    """The function draws random numbers."""


class ProofFailed(CaptureError):
    """The program does not reproduce the values or the native gradients of the function."""


class GradcheckError(NonsmoothError, AssertionError):
    """A derivative is refuted: along a path, at a kink, or by its cotangents."""


class NoField(NonsmoothError, ArithmeticError):
    """The program has no conservative field at the point: it jumps, or is not Lipschitz there."""


class NoDerivative(NonsmoothError, ArithmeticError):
    """There is no one-sided derivative at the point, or none can be decided."""


class GridError(NonsmoothError, RuntimeError):
    """Some runs of a grid failed, or the cluster that did them was lost; what is finished is stored."""


class NotMaximal(NonsmoothError, ArithmeticError):
    """A point was said to maximise, and does not, or that cannot be told."""


class NotConverged(NonsmoothError, ArithmeticError):
    """A solver has not solved its equation: the residual is too large, or not a number."""


class NotInvertible(NonsmoothError, ArithmeticError):
    """An equation does not define its solution as a function: an element of its conservative Jacobian is singular."""


class ImplicitWarning(UserWarning):
    """What is known of a derivative of a solution is less than the theorem asks for."""


class StaleProgram(NonsmoothError, RuntimeError):
    """A guard or an escaped value differs at the new point."""


class RegistrationError(NonsmoothError, TypeError):
    """A record of the dictionary contradicts itself."""
