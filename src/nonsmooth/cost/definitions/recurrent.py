"""Recurrent cells and layers: steps over time, each of which moves a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers
from nonsmooth.errors import RegistrationError

__all__: list[str] = []

State: TypeAlias = "tuple[Numbers, ...]"
Cell: TypeAlias = "Callable[[Numbers, State, Sequence[Numbers]], State]"
"""What a step is: input (rows, features), state, parameters (W_x, W_h, b_x, b_h, W_r) -> state."""


def _linear(x: Numbers, weight: Numbers, bias: Sequence[Numbers]) -> Numbers:
    """X W' + b."""
    found = x.contracted(weight, (*x.shape[:-1], weight.shape[0]), weight.shape[1], "...k,jk->...j")
    return found + bias[0] if bias else found


def _gates(both: Numbers, count: int) -> list[Numbers]:
    """Cut the last axis into gates."""
    width = both.shape[-1] // count
    shape = (*both.shape[:-1], width)
    return [both.alias(shape, lambda a, n=n: a[..., n * width : (n + 1) * width]) for n in range(count)]


def _biases(parameters: Sequence[Numbers], which: int) -> Sequence[Numbers]:
    """Give the bias of the input (0) or of the state (1), if there are any."""
    vectors = [p for p in parameters[2:4] if p.ndim == 1]
    return vectors[which : which + 1]


def _lstm_from(gates: Numbers, cell: Numbers) -> State:
    """Give c' = f c + i g, h' = o tanh c'."""
    i, f, g, o = _gates(gates, 4)
    kept = f.apply("sigmoid") * cell + i.apply("sigmoid") * g.apply("tanh")
    return o.apply("sigmoid") * kept.apply("tanh"), kept


def _lstm(x: Numbers, state: State, parameters: Sequence[Numbers]) -> State:
    """The gates i, f, g, o are W_x x + b_x + W_h h + b_h; a projection shortens the state."""
    inputs = _linear(x, parameters[0], _biases(parameters, 0))
    hidden, cell = _lstm_from(inputs + _linear(state[0], parameters[1], _biases(parameters, 1)), state[1])
    projected = [p for p in parameters[2:] if p.ndim == 2]
    return (_linear(hidden, projected[0], ()) if projected else hidden), cell


def _gru(x: Numbers, state: State, parameters: Sequence[Numbers]) -> State:
    """r, z = sigmoid(a + b), n = tanh(a + r b), h' = n + z (h - n), where a = W_x x + b_x and b = W_h h + b_h."""
    inputs = _gates(_linear(x, parameters[0], _biases(parameters, 0)), 3)
    states = _gates(_linear(state[0], parameters[1], _biases(parameters, 1)), 3)
    reset, update = ((a + b).apply("sigmoid") for a, b in zip(inputs[:2], states[:2], strict=True))
    new = (inputs[2] + reset * states[2]).apply("tanh")
    return (new + update * (state[0] - new),)


def _tanh(x: Numbers, state: State, parameters: Sequence[Numbers]) -> State:
    """Give h' = tanh(W_x x + b_x + W_h h + b_h)."""
    inputs = _linear(x, parameters[0], _biases(parameters, 0))
    return ((inputs + _linear(state[0], parameters[1], _biases(parameters, 1))).apply("tanh"),)


def _cell(name: str, step: Cell, states: int) -> None:
    """Define one step."""

    @define(name)
    def definition(call: Called) -> State:
        if "input_gates" in call.attributes.get("given", ()):
            return _fused(call)
        return step(call.x, call.operands[1 : 1 + states], call.operands[1 + states :])


def _fused(call: Called) -> State:
    """Run a step of an lstm whose products are computed already."""
    first, second, cell, *biases = call.operands
    gates = first + biases[0] if biases else first
    return _lstm_from(gates + (second + biases[1] if len(biases) > 1 else second), cell)


# --- layers -----------------------------------------------------------------------------------------------------------


def _stacked(parts: Sequence[Numbers], axis: int) -> Numbers:
    """Show arrays of one shape along a new axis."""
    shape = (*parts[0].shape[:axis], len(parts), *parts[0].shape[axis:])
    return parts[0].joined(parts[1:], shape, lambda *a: np.stack(a, axis))


def _beside(parts: Sequence[Numbers]) -> Numbers:
    """Show arrays beside each other along the last axis."""
    if len(parts) == 1:
        return parts[0]
    shape = (*parts[0].shape[:-1], sum(p.shape[-1] for p in parts))
    return parts[0].joined(parts[1:], shape, lambda *a: np.concatenate(a, -1))


def _along(x: Numbers, state: State, parameters: Sequence[Numbers], step: Cell, reverse: bool) -> tuple[Numbers, State]:
    """Run steps over the first axis, or back over it."""
    found: list[Numbers] = []
    for time in reversed(range(x.shape[0])) if reverse else range(x.shape[0]):
        state = step(x.alias(x.shape[1:], lambda a, t=time: a[t]), state, parameters)
        found.append(state[0])
    return _stacked(found[::-1] if reverse else found, 0), state


def _packed(x: Numbers, state: State, parameters: Sequence[Numbers], step: Cell) -> tuple[Numbers, State]:
    """Run steps over sequences of different lengths: the first entries of all, then as many rows as there are left."""
    batch, rows = state[0].shape[0], x.shape[0]
    first = step(x.alias((min(batch, rows), x.shape[1])), state, parameters)
    if rows <= batch:
        return first[0], first
    later = rows - batch
    wide = tuple(s.alias((later, s.shape[1])) for s in first)
    last = step(x.alias((later, x.shape[1])), wide, parameters)
    return last[0].alias((rows, last[0].shape[1])), tuple(s.alias((batch, s.shape[1])) for s in last)


def _layer(name: str, step: Cell, states: int) -> None:
    """Define layers of steps over time."""

    @define(name)
    def definition(call: Called) -> list[Numbers]:
        packed = bool(call.attributes.get("packed"))
        arrays = [o for i, o in enumerate(call.operands) if not (packed and i == 1)]
        x, start, parameters = arrays[0], arrays[1 : 1 + states], arrays[1 + states :]
        first = bool(call.attributes.get("batch_first"))
        if first:
            x = x.alias((x.shape[1], x.shape[0], *x.shape[2:]), lambda a: a.swapaxes(0, 1))
        both, layers = 1 + bool(call.attributes["bidirectional"]), int(call.attributes["num_layers"])
        each = len(parameters) // (layers * both)
        ends: list[State] = []
        for layer in range(layers):
            found = []
            for way in range(both):
                n = layer * both + way
                own = parameters[n * each : (n + 1) * each]
                state = tuple(s.alias(s.shape[1:], lambda a, n=n: a[n]) for s in start)
                run = _packed(x, state, own, step) if packed else _along(x, state, own, step, way == 1)
                found.append(run[0])
                ends.append(run[1])
            x = _beside(found)
        if first:
            x = x.alias((x.shape[1], x.shape[0], *x.shape[2:]), lambda a: a.swapaxes(0, 1))
        return [x, *(_stacked([end[k] for end in ends], 0) for k in range(states))]


for _name, _step, _states in (("lstm", _lstm, 2), ("gru", _gru, 1), ("rnn_tanh", _tanh, 1)):
    _cell(f"{_name}_cell", _step, _states)
    _layer(_name, _step, _states)


# --- kernels that the dictionary opens, counted in the framework's own passes alone -------------------------------------

_LSTM = 2
"""The mode of torch's fused layers that is an lstm."""


@define("mkldnn_rnn_layer")
def fused_layer(call: Called) -> list[Numbers]:
    """One layer of an lstm in one direction, in one kernel."""
    _check_lstm(call)
    x, start, parameters = call.x, call.operands[5:7], call.operands[1 : 5 if call.attributes["has_biases"] else 3]
    state = tuple(s.alias(s.shape[-2:]) for s in start)
    return [_along(x, state, parameters, _lstm, bool(call.attributes["reverse"]))[0]]


@define("mkldnn_rnn_layer_backward")
def fused_layer_backward(call: Called) -> None:
    """Back through the steps: 23 operations for each entry of the state, and the four products of the gates' cotangents.

    With t = tanh c: dc = dc + dh o (1 - t t), do = dh t o (1 - o), df = dc c f (1 - f), di = dc g i (1 - i),
    dg = dc i (1 - g g), and dc f is what goes to the step before.
    """
    _check_lstm(call)
    x, width = call.x, int(call.attributes["hidden_size"])
    rows = x.size // max(x.shape[-1], 1)
    for name, each in (("mul", 16), ("sub", 5), ("add", 2)):
        call.tally.add(name, "", each * rows * width)
    gates = x.like((rows, 4 * width))
    for inputs in (x.like((rows, x.shape[-1])), x.like((rows, width))):
        gates.contracted(inputs, inputs.shape, 4 * width)
        gates.contracted(inputs, (4 * width, inputs.shape[1]), rows)
    if call.attributes["has_biases"]:
        gates.sum(0)


def _check_lstm(call: Called) -> None:
    """Leave other modes uncounted."""
    if call.attributes["mode"] != _LSTM:
        raise RegistrationError(f"a fused layer of mode {call.attributes['mode']} has no scalar program.")
