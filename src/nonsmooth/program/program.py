"""The program: a finite sequence of elementary operations that implements a function near a point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nonsmooth.dictionary.operation import Kind, Operation

__all__ = ["Finding", "Guard", "Mode", "Program", "Proof", "Ref", "Source", "Step", "Value", "references"]


@dataclass(frozen=True)
class Source:
    """A line of the user's program."""

    file: str
    line: int
    function: str = ""
    text: str = ""

    @property
    def place(self) -> str:
        """Give `file:line`, the file without its folder.

        >>> Source("/a/b/model.py", 31).place
        'model.py:31'
        """
        return f"{self.file.replace(chr(92), '/').rsplit('/', 1)[-1]}:{self.line}"

    def __str__(self) -> str:
        """Print the place and the text of the line."""
        return f"{self.place}, `{self.text}`" if self.text else self.place


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of the program, by its number."""

    value: int


@dataclass(frozen=True)
class Value:
    """What is known of a value before any evaluation: name, shape, type, and on what it depends."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    differentiable: bool = False
    depends_on_point: bool = False
    depends_on_data: bool = False


@dataclass(frozen=True)
class Mode:
    """The state of the framework under which a step runs: gradient recording and automatic casting."""

    grad: bool = True
    autocast: tuple[str, str] | None = None


@dataclass(frozen=True)
class Step:
    """One operation of the program.

    `target` is the framework's callable, called with `args` and `kwargs`, in which every `Ref` stands for a value;
    `operands` and `attributes` are what the record of the dictionary calls so. `results` are the values it sets (None
    for a result that is no array), `mutates` those that it changes in place.
    """

    index: int
    operation: Operation
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[int | None, ...]
    operands: tuple[Any, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    mutates: tuple[int, ...] = ()
    mode: Mode = Mode()
    source: Source | None = None
    module: str = ""
    label: str = ""
    single: bool = True
    forced: tuple[tuple[int, int], ...] = ()
    dynamic_shape: bool = False

    @property
    def where(self) -> str:
        """Give the line of the user's program, or say that it is not known."""
        return str(self.source) if self.source else "an unknown line"

    def __str__(self) -> str:
        """Name the step as errors do: operation, number and line."""
        return f"`{self.operation}` (step {self.index}, {self.where})"


@dataclass(frozen=True)
class Guard:
    """A value of the program that Python has seen: the outcome of an `if` on data, or a value that escaped.

    The program is valid only where it comes out the same: every evaluation checks it.
    """

    step: int
    kind: str
    outcome: Any
    source: Source | None
    comparisons: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Name the guard as errors do."""
        kinds = {"branch": "an `if` on data", "constant": "a value of a tensor from outside that Python has seen"}
        what = kinds.get(self.kind, f"a value that left through {self.kind}")
        return f"{what} ({self.source or 'an unknown line'})"


@dataclass(frozen=True)
class Finding:
    """Something in the text of the program that a user should know, with what to do about it."""

    rule: str
    message: str
    source: Source | None = None
    advice: str = ""


@dataclass(frozen=True)
class Proof:
    """What capture compared: values and native gradients, at the point and at random nearby points.

    `value_error` and `gradient_error` are the largest relative differences met; `nearby` counts the nearby points.
    """

    value_error: float
    gradient_error: float
    nearby: int
    tolerance: float
    status: str = "sampled"


@dataclass(frozen=True, eq=False)
class Program:
    """A captured function: the steps, and what is needed to evaluate them again.

    Constants are the tensors from outside that the function reads, as they are at each evaluation; of those that the
    steps change (`rewritten`) every evaluation starts from copies. `shared` gives, for a value in memory that a step writes
    to, the other values that show that memory.

    It prints as Python text. It is valid on the piece of the function on which every guard comes out as recorded; an
    evaluation elsewhere captures again.
    """

    framework: Any = field(repr=False)
    function: Callable[..., Any] = field(repr=False)
    values: tuple[Value, ...] = field(repr=False)
    steps: tuple[Step, ...] = field(repr=False)
    constants: Mapping[int, Any] = field(repr=False)
    inputs: tuple[int, ...]
    data: tuple[int, ...]
    result: Any
    structure: Any = field(repr=False)
    guards: tuple[Guard, ...] = ()
    findings: tuple[Finding, ...] = ()
    proof: Proof | None = None
    rewritten: frozenset[int] = frozenset()
    shared: Mapping[int, frozenset[int]] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def nonsmooth(self) -> tuple[Step, ...]:
        """The steps that are not smooth and depend on the point."""
        return tuple(
            s
            for s in self.steps
            if not s.operation.kind.is_smooth
            and s.operation.kind is not Kind.OPAQUE
            and any(self.values[r.value].depends_on_point for r in references(s.operands))
        )

    @cached_property
    def producer(self) -> Mapping[int, Step]:
        """The step that first sets each value."""
        table: dict[int, Step] = {}
        for step in self.steps:
            for value in step.results:
                if value is not None:
                    table.setdefault(value, step)
        return table

    @cached_property
    def uses(self) -> Mapping[int, tuple[Step, ...]]:
        """The steps that read each value."""
        table: dict[int, list[Step]] = {}
        for step in self.steps:
            for ref in dict.fromkeys(references((step.args, dict(step.kwargs)))):
                table.setdefault(ref.value, []).append(step)
        return {value: tuple(steps) for value, steps in table.items()}

    def name(self, value: int) -> str:
        """Give the name of a value in the text of the program."""
        return self.values[value].name

    def __len__(self) -> int:
        """Count the steps."""
        return len(self.steps)

    def __str__(self) -> str:
        """Print the program as Python text with the user's lines."""
        from nonsmooth.program.text import program_text

        return program_text(self)

    __repr__ = __str__


def references(tree: Any) -> Iterator[Ref]:
    """Walk the references in nested tuples, lists and mappings.

    >>> [r.value for r in references((Ref(1), [Ref(2), {"a": Ref(3)}], 4))]
    [1, 2, 3]
    """
    if isinstance(tree, Ref):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from references(item)
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from references(item)
