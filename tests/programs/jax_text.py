"""The text of a random program for JAX: the same formulas in the words of jax.numpy, `if` and `while` as cond and while_loop.

A table of rules, each "pattern -> what it becomes", in which A, B, C stand for any expression; a call that no rule and no
common method covers cannot be said in JAX, and is refused. Programs are written for torch first, so that a seed is one program.
"""

from __future__ import annotations

import ast
import copy
import functools
import re
from collections.abc import Iterator, Sequence

__all__ = ["COMMON_METHODS", "HEAD", "RULES", "NotInJax", "in_jax"]


class NotInJax(Exception):
    """A program that uses what JAX has not."""


HEAD = """import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)
DTYPE = jnp.float64
"""

HELPERS = """

def largest(first, *others):
    for other in others:
        first = jax.lax.cond(other > first, lambda a, b: b, lambda a, b: a, first, other)
    return first


def least(first, *others):
    for other in others:
        first = jax.lax.cond(other < first, lambda a, b: b, lambda a, b: a, first, other)
    return first


def largest_by(key, first, *others):
    for other in others:
        first = jax.lax.cond(key(other) > key(first), lambda a, b: b, lambda a, b: a, first, other)
    return first


def pool(a, window, stride, padding):
    return jax.lax.reduce_window(a, -jnp.inf, jax.lax.max, (window,), (stride,), [(padding, padding)])


def halves(a):
    n = a.shape[0]
    return jnp.stack([jnp.max(a[: (n + 1) // 2]), jnp.max(a[n // 2 :])])

"""
"""Python's comparisons by cond, and poolings: what the rules below call."""

COMMON_METHODS = frozenset("sum mean cumsum reshape max min argmax all any".split())
"""Methods that arrays of both have; of max and min without an axis only."""

SAME = (
    "sin cos tanh exp abs maximum minimum fmax fmin sqrt logaddexp log1p hypot sign floor round trunc remainder stack "
    "diag argsort outer zeros_like where"
).split()
NETWORKS = "relu sigmoid".split(), "softplus selu elu leaky_relu".split()

RULES = [
    *(f"torch.{name}(*A) -> jnp.{name}(*A)" for name in SAME),
    *(f"torch.{name}(*A) -> jax.nn.{name}(*A)" for name in NETWORKS[0]),
    *(f"F.{name}(*A) -> jax.nn.{name}(*A)" for name in NETWORKS[1]),
    # arrays
    "torch.tensor(A, dtype=DTYPE) -> jnp.array(A, dtype=DTYPE)",
    "torch.zeros(A, dtype=DTYPE) -> jnp.zeros(A, dtype=DTYPE)",
    "torch.cat(A) -> jnp.concat(A)",
    "A.flip(B) -> jnp.flip(A, B)",
    "A.to(DTYPE) -> A.astype(DTYPE)",
    "A.double() -> A.astype(DTYPE)",
    "A.long() -> A.astype(int)",
    "A.bool() -> A.astype(bool)",
    "A.gather(B, C) -> jnp.take_along_axis(A, C, B)",
    "A.masked_fill(B, C) -> jnp.where(B, C, A)",
    "A.detach() -> jax.lax.stop_gradient(A)",
    "torch.equal(A, B) -> jnp.array_equal(A, B)",
    "torch.allclose(A, B, rtol=C, atol=D) -> jnp.allclose(A, B, rtol=C, atol=D)",
    "torch.bucketize(A, B) -> jnp.searchsorted(B, A)",
    "F.one_hot(A, B) -> jax.nn.one_hot(A, B)",
    # switches
    "torch.lerp(A, B, C) -> A + C * (B - A)",
    "F.gelu(A) -> jax.nn.gelu(A, approximate=False)",
    "F.relu6(A) -> jax.nn.relu6(A)",
    "F.hardtanh(A) -> jax.nn.hard_tanh(A)",
    "F.hardswish(A) -> jax.nn.hard_swish(A)",
    "F.hardsigmoid(A) -> jax.nn.hard_sigmoid(A)",
    "F.prelu(A.reshape(1, -1), B).reshape(A.shape) -> jnp.where(A > 0, A, B * A)",
    "F.softshrink(A, B) -> A - jnp.clip(A, -B, B)",
    "F.hardshrink(A, B) -> jnp.where(abs(A) > B, A, 0.0)",
    "F.threshold(A, B, C) -> jnp.where(A > B, A, C)",
    "F.l1_loss(A, B, reduction='none') -> jnp.abs(A - B)",
    "torch.relu_(A.clone()) -> jax.nn.relu(A)",
    "A.clone().clamp_(B, C) -> jnp.clip(A, B, C)",
    "A.clamp(B, C) -> jnp.clip(A, B, C)",
    "A.clamp(min=B) -> jnp.clip(A, min=B)",
    "A.clamp(max=B) -> jnp.clip(A, max=B)",
    "torch.clamp(A, B, C) -> jnp.clip(A, B, C)",
    "torch.clamp(A, min=B) -> jnp.clip(A, min=B)",
    "torch.clamp(A, max=B) -> jnp.clip(A, max=B)",
    "A.abs() -> jnp.abs(A)",
    "torch.special.entr(A) -> jax.scipy.special.entr(A)",
    # order
    "A.max(B).values -> jnp.max(A, B)",
    "A.min(B).values -> jnp.min(A, B)",
    "A.max(B).indices -> jnp.argmax(A, B)",
    "A.amax(B) -> jnp.max(A, B)",
    "A.amin(B) -> jnp.min(A, B)",
    "A.amax() -> jnp.max(A)",
    "A.amin() -> jnp.min(A)",
    "A.sort().values -> jnp.sort(A)",
    "A.sort().indices -> jnp.argsort(A)",
    "A.sort(descending=True).values -> jnp.sort(A, descending=True)",
    "torch.msort(A) -> jnp.sort(A, 0)",
    "A.topk(B).values -> jax.lax.top_k(A, B)[0]",
    "A.topk(B, largest=False).values -> -jax.lax.top_k(-A, B)[0]",
    "A.kthvalue(B).values -> jnp.sort(A)[B - 1]",
    "A.median() -> jnp.sort(A)[(A.shape[0] - 1) // 2]",
    "A.cummax(B).values -> jax.lax.cummax(A, B)",
    "A.cummin(B).values -> jax.lax.cummin(A, B)",
    "torch.aminmax(A).max -> jnp.max(A)",
    "F.max_pool1d(A.reshape(1, 1, -1), B, C).reshape(-1) -> pool(A, B, C, 0)",
    "F.max_pool1d(A.reshape(1, 1, -1), B, C, D).reshape(-1) -> pool(A, B, C, D)",
    "F.adaptive_max_pool1d(A.reshape(1, 1, -1), 2).reshape(-1) -> halves(A)",
    # norms and spectra
    "torch.linalg.vector_norm(A) -> jnp.linalg.norm(A)",
    "torch.linalg.vector_norm(A, float('inf')) -> jnp.linalg.norm(A, jnp.inf)",
    "torch.linalg.vector_norm(A, B) -> jnp.linalg.norm(A, B)",
    "torch.norm(A) -> jnp.linalg.norm(A)",
    "A.norm(p=B) -> jnp.linalg.norm(A, B)",
    "torch.dist(A, B) -> jnp.linalg.norm(A - B)",
    "torch.cdist(A.reshape(1, -1), B.reshape(1, -1)).reshape(()) -> jnp.linalg.norm(A - B)",
    "A.std() -> jnp.std(A, ddof=1)",
    "torch.linalg.eigvalsh(A) -> jnp.linalg.eigvalsh(A)",
    "torch.linalg.svdvals(A) -> jnp.linalg.svdvals(A)",
    "torch.linalg.matrix_norm(A, B) -> jnp.linalg.norm(A, B)",
    # Python's comparisons
    "abs(A) -> abs(A)",
    "max(A, B) -> largest(A, B)",
    "min(A, B) -> least(A, B)",
    "max([A, B]) -> largest(A, B)",
    "max([A, B, C]) -> largest(A, B, C)",
    "min([A, B, C]) -> least(A, B, C)",
    "max([A, B], key=C) -> largest_by(C, A, B)",
    "max([A, B, C], key=D) -> largest_by(D, A, B, C)",
    "sorted([A, B, C])[1] -> largest(least(A, B), least(largest(A, B), C))",
    "sorted([A, B], key=lambda term: -term) -> (largest(A, B), least(A, B))",
    "A if B else C -> jax.lax.cond(B, lambda: A, lambda: C)",
    "not A -> ~(A)",
]
"""What becomes of torch's words. `*A` stands for all arguments, as they are."""


@functools.cache
def rules() -> list[tuple[ast.expr, ast.expr]]:
    """Read the rules."""
    pairs = (rule.split(" -> ") for rule in RULES)
    return [(ast.parse(old, mode="eval").body, ast.parse(new, mode="eval").body) for old, new in pairs]


def in_jax(text: str) -> str:
    """Translate the text of a program, or say what has no words in JAX."""
    module = ast.parse(text)
    module.body = list(Translation().statements(module.body))
    return HELPERS + ast.unparse(ast.fix_missing_locations(module)) + "\n"


def is_variable(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and len(node.id) == 1 and node.id in "ABCD"


def match(pattern: object, node: object, found: dict[str, object]) -> bool:
    """Tell whether an expression has the form of a pattern; `found` gets what its letters stand for."""
    if isinstance(pattern, ast.Name) and is_variable(pattern):
        known = found.setdefault(pattern.id, node)
        return isinstance(known, ast.AST) and isinstance(node, ast.AST) and ast.dump(known) == ast.dump(node)
    if isinstance(pattern, list) and len(pattern) == 1 and isinstance(pattern[0], ast.Starred):
        found[pattern[0].value.id] = node
        return isinstance(node, list)
    if isinstance(pattern, list):
        return (
            isinstance(node, list) and len(pattern) == len(node) and all(map(match, pattern, node, [found] * len(node)))
        )
    if not isinstance(pattern, ast.AST):
        return pattern == node
    if type(pattern) is not type(node):
        return False
    return all(match(getattr(pattern, name), getattr(node, name), found) for name in pattern._fields if name != "ctx")


class Fill(ast.NodeTransformer):
    """Puts expressions in place of letters."""

    def __init__(self, found: dict[str, object]) -> None:
        self.found = found

    def visit_Name(self, node: ast.Name) -> object:
        return copy.deepcopy(self.found[node.id]) if node.id in self.found else node

    def visit_Starred(self, node: ast.Starred) -> object:
        return copy.deepcopy(self.found[node.value.id])  # type: ignore[attr-defined]


class Translation(ast.NodeTransformer):
    """Translates expressions from the outside in, and statements that choose into expressions."""

    def visit(self, node: ast.AST) -> ast.AST:
        """Apply the first rule that fits, to what its letters stand for in their translation."""
        for pattern, template in rules():
            found: dict[str, object] = {}
            if match(pattern, node, found):
                said = {
                    k: [self.visit(n) for n in v] if isinstance(v, list) else self.visit(v) for k, v in found.items()
                }
                return Fill(said).visit(copy.deepcopy(template))
        return super().visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Keep the methods that both have."""
        if not isinstance(node.func, ast.Attribute):
            raise NotInJax(ast.unparse(node))
        of_module = re.fullmatch(r"(torch|F|np)(\.\w+)*", ast.unparse(node.func.value))
        along = node.func.attr in ("max", "min") and node.args
        if of_module or along or node.func.attr not in COMMON_METHODS:
            raise NotInJax(ast.unparse(node))
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Refuse a mask as an index: shapes would depend on data."""
        if isinstance(node.slice, ast.Compare):
            raise NotInJax(ast.unparse(node))
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        """Write `and` and `or` as operators on arrays."""
        operator = ast.BitAnd() if isinstance(node.op, ast.And) else ast.BitOr()
        values = [self.visit(value) for value in node.values]
        return functools.reduce(lambda a, b: ast.BinOp(a, operator, b), values)

    def statements(self, body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
        """Translate statements."""
        for node in body:
            match node:
                case ast.FunctionDef():
                    node.body = list(self.statements(node.body))
                    yield node
                case ast.Assign() | ast.Return():
                    node.value = self.visit(node.value)
                    yield node
                case ast.For(target=ast.Name(id=term), iter=ast.Tuple(elts=items)):
                    for item in items:
                        yield assign(term, self.visit(item))
                        yield from self.statements(copy.deepcopy(node.body))
                case ast.While(test=test, body=[ast.Assign(targets=[ast.Name(id=name)], value=value)]):
                    head = f"{name} = jax.lax.while_loop(lambda {name}: A, lambda {name}: B, {name})"
                    yield Fill({"A": self.visit(test), "B": self.visit(value)}).visit(ast.parse(head).body[0])
                case ast.If():
                    name = assigned(node)
                    yield assign(name, self.chosen(node, name))
                case _:
                    raise NotInJax(ast.unparse(node))

    def chosen(self, node: ast.stmt | None, name: str) -> ast.expr:
        """Give what a name is after a statement, as an expression."""
        if node is None:
            return ast.Name(name)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return self.visit(node.value)  # type: ignore[return-value]
        if not isinstance(node, ast.If) or len(node.body) != 1 or len(node.orelse) > 1:
            raise NotInJax(ast.unparse(node))
        true, false = self.chosen(node.body[0], name), self.chosen(node.orelse[0] if node.orelse else None, name)
        template = ast.parse("jax.lax.cond(A, lambda: B, lambda: C)", mode="eval").body
        return Fill({"A": self.visit(node.test), "B": true, "C": false}).visit(template)


def assign(name: str, value: ast.AST) -> ast.stmt:
    return ast.Assign([ast.Name(name)], value)


def assigned(node: ast.If) -> str:
    """Give the one name that an `if` assigns."""
    names = {ast.unparse(n.targets[0]) for n in ast.walk(node) if isinstance(n, ast.Assign)}
    if len(names) != 1:
        raise NotInJax(ast.unparse(node))
    return names.pop()
