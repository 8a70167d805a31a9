"""Steps of programs of torch as shapes: operands, what moves, results, and what the attributes mean."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.cost.definitions import tally_of
from nonsmooth.cost.sweeps import count_steps
from nonsmooth.frameworks.torch import TORCH
from nonsmooth.program.shaped import ShapedCall


def calls(function, *arrays) -> dict[str, ShapedCall]:
    """Capture a function of arrays and give its steps as shapes, the first of each operation."""

    def total(arrays):
        result = function(*arrays)
        return result.sum() if isinstance(result, torch.Tensor) else result[0].sum()

    program = ns.capture(total, tuple(arrays))
    found = [TORCH.shaped(program, step) for step in program.steps]
    return {call.operation: call for call in reversed(found)}


def call(name, function, *shapes) -> ShapedCall:
    """Give the one step of an operation at arrays of some shapes."""
    generator = torch.Generator().manual_seed(0)
    return calls(function, *(torch.rand(shape, generator=generator) + 0.5 for shape in shapes))[name]


@pytest.mark.parametrize(
    ("name", "function", "shapes", "operands"),
    [
        ("mul", lambda x: x / 2.0, [(3,)], [((3,), True), ((), False)]),
        ("rsub", lambda x: torch.rsub(x, 1.0), [(3,)], [((3,), True), ((), False)]),
        ("div", lambda x: 2.0 / x, [(3,)], None),
        ("add", lambda x: x + torch.ones(3), [(2, 3)], [((2, 3), True), ((3,), False)]),
        ("add", lambda x: x.clone().add_(1.0), [(2,)], [((2,), True), ((), False)]),
        ("cat", lambda x: torch.cat([x, torch.ones(2), x]), [(3,)], [((3,), True), ((2,), False), ((3,), True)]),
        ("stack", lambda x, y: torch.stack([x, y]), [(3,), (3,)], [((3,), True), ((3,), True)]),
        ("einsum", lambda x, y: torch.einsum("ij,jk->ik", x, y), [(2, 3), (3, 4)], [((2, 3), True), ((3, 4), True)]),
        ("power", lambda x: x**2.5, [(3,)], [((3,), True), ((), False)]),
        ("where", lambda x: torch.where(x > 1, x, 0.0), [(3,)], [((3,), False), ((3,), True), ((), False)]),
        ("detach", lambda x: x.detach() * x, [(3,)], [((3,), False)]),
        ("lerp", lambda x: torch.lerp(x, torch.ones(3), 0.3), [(3,)], [((3,), True), ((3,), False), ((), False)]),
        ("linear", lambda x: F.linear(x, torch.ones(4, 3)), [(2, 3)], [((2, 3), True), ((4, 3), False)]),
        ("index", lambda x: x[torch.tensor([0, 2])], [(3,)], [((3,), True), ((2,), False)]),
    ],
)
def test_operands_are_the_arrays_and_the_numbers_in_their_place(name, function, shapes, operands):
    found = call(name, function, *shapes) if operands is not None else None
    if found is not None:
        assert [(o.shape, o.moving) for o in found.operands] == operands


def test_a_number_over_an_array_reads_as_torch_records_it():
    found = calls(lambda x: 2.0 / x, torch.ones(3))
    assert all(o.shape in ((3,), ()) for c in found.values() for o in c.operands)


def test_results_of_several_arrays_stand_in_order_and_in_place_steps_name_theirs():
    assert call("max_dim", lambda x: x.max(1)[0], (2, 3)).results == ((2,), (2,))
    assert call("mul", lambda x: x.clone().mul_(x), (2, 3)).results == ((2, 3),)
    assert call("sort", lambda x: x.sort(0)[0], (4, 3)).results == ((4, 3), (4, 3))


def test_nothing_moves_without_a_gradient():
    def function(x):
        with torch.no_grad():
            y = x.exp()
        return x * y

    assert not call("exp", function, (3,)).operands[0].moving
    found = call("mul", function, (3,))
    assert [o.moving for o in found.operands] == [True, False]


def test_attributes_hold_no_arrays():
    for name, function in {
        "einsum": lambda x: torch.einsum("ij,ij->", x, x),
        "cat": lambda x: torch.cat([x, x]),
        "index": lambda x: x[torch.tensor([0]), torch.tensor([1])],
    }.items():
        found = call(name, function, (2, 3))
        assert not any(isinstance(v, torch.Tensor) for v in found.attributes.values())
        assert not any(isinstance(u, torch.Tensor) for v in found.attributes.values() if isinstance(v, list) for u in v)


@pytest.mark.parametrize(
    ("name", "function", "shapes", "terms"),
    [
        ("matmul", lambda a, b: a @ b, [(2, 3), (3, 4)], 3),
        ("matmul", lambda a, b: a @ b, [(5,), (5,)], 5),
        ("matmul", lambda a, b: a @ b, [(7, 1, 2, 3), (4, 3, 6)], 3),
        ("mm", torch.mm, [(2, 3), (3, 4)], 3),
        ("bmm", torch.bmm, [(5, 2, 3), (5, 3, 4)], 3),
        ("mv", torch.mv, [(2, 3), (3,)], 3),
        ("dot", torch.dot, [(3,), (3,)], 3),
        ("inner", torch.inner, [(2, 3), (4, 3)], 3),
        ("linear", F.linear, [(2, 3), (4, 3), (4,)], 3),
        ("addmm", torch.addmm, [(4,), (2, 3), (3, 4)], 3),
        ("addmv", torch.addmv, [(2,), (2, 3), (3,)], 3),
        ("addbmm", torch.addbmm, [(2, 4), (5, 2, 3), (5, 3, 4)], 15),
        ("baddbmm", torch.baddbmm, [(5, 2, 4), (5, 2, 3), (5, 3, 4)], 3),
    ],
)
def test_terms_count_the_products_of_one_entry(name, function, shapes, terms):
    assert call(name, function, *shapes).attributes["terms"] == terms


@pytest.mark.parametrize(
    ("name", "function", "shape", "axes"),
    [
        ("sum", lambda x: x.sum(), (2, 3), (0, 1)),
        ("mean", lambda x: x.mean(-1), (2, 3), (1,)),
        ("amax", lambda x: x.amax((0, -1)), (2, 3, 4), (0, 2)),
        ("softmax", lambda x: x.softmax(-1), (2, 3), (1,)),
        ("max", lambda x: x.max(), (2, 3), (0, 1)),
        ("median", lambda x: x.median(), (2, 3), (0, 1)),
        ("sort", lambda x: x.sort(0)[0], (2, 3), (0,)),
        ("std", lambda x: x.std(), (2, 3), (0, 1)),
        ("vector_norm", lambda x: torch.linalg.vector_norm(x, dim=0), (2, 3), (0,)),
        ("layer_norm", lambda x: F.layer_norm(x, (3, 4)), (2, 3, 4), (1, 2)),
        ("cumsum", lambda x: x.cumsum(1), (2, 3), (1,)),
        ("logsumexp", lambda x: x.logsumexp(0), (), ()),
    ],
)
def test_axes_are_those_along_which_the_operation_runs(name, function, shape, axes):
    assert call(name, function, shape).attributes["axes"] == axes


def test_geometry_of_convolutions():
    found = call("conv2d", lambda u, w: F.conv2d(u, w, stride=2, padding=(1, 0), groups=2), (2, 4, 6, 5), (6, 2, 3, 2))
    wanted = {
        "spatial": (6, 5),
        "kernel": (3, 2),
        "stride": (2, 2),
        "padding": ((1, 1), (0, 0)),
        "base_dilation": (1, 1),
        "dilation": (1, 1),
        "groups": 2,
        "transposed": False,
        "channels": (4, 6),
        "batch": 2,
    }
    assert {k: found.attributes[k] for k in wanted} == wanted
    found = call("conv1d", lambda u, w: F.conv1d(u, w, padding="same", dilation=3), (2, 6), (3, 2, 3))
    assert found.attributes["padding"] == ((3, 3),)
    assert (found.attributes["batch"], found.attributes["channels"]) == (1, (2, 3))
    assert call("conv1d", lambda u, w: F.conv1d(u, w, padding="valid"), (2, 6), (3, 2, 2)).attributes["padding"] == (
        (0, 0),
    )
    found = call("conv_tbc", lambda u, w, b: torch.conv_tbc(u, w, b, 1), (7, 2, 3), (2, 3, 4), (4,))
    assert (found.attributes["spatial"], found.attributes["channels"], found.attributes["batch"]) == ((7,), (3, 4), 2)


def test_a_transposed_convolution_is_one_of_an_image_with_zeros_between():
    found = call(
        "conv_transpose1d",
        lambda u, w: F.conv_transpose1d(u, w, stride=2, padding=1, output_padding=1, groups=2, dilation=2),
        (1, 2, 5),
        (2, 2, 3),
    )
    wanted = {"stride": (1,), "base_dilation": (2,), "dilation": (2,), "padding": ((3, 4),), "channels": (2, 4)}
    assert {k: found.attributes[k] for k in wanted} == wanted
    # the size of the result: the image with zeros between (9), padded (16), less the reach of the kernel (4)
    assert found.results[0] == (1, 4, 9 + 3 + 4 - 4)


def test_packed_sequences_say_so():
    layer = torch.nn.GRU(2, 3)

    def function(x):
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2]))
        return layer(packed)[0].data

    assert call("gru", function, (4, 2, 2)).attributes["packed"]
    assert not call("gru", lambda x: layer(x)[0], (4, 2, 2)).attributes["packed"]


def test_given_names_the_arguments():
    found = call("layer_norm", lambda x, b: F.layer_norm(x, (3,), None, b), (2, 3), (3,))
    assert found.attributes["given"] == ("input", "bias")


def test_a_mask_says_whether_it_chooses_or_is_added():
    def attention(mask):
        return lambda q: F.scaled_dot_product_attention(q, q, q, mask)

    name, shape = "scaled_dot_product_attention", (1, 1, 2, 3)
    assert call(name, attention(torch.ones(2, 2, dtype=torch.bool)), shape).attributes["boolean_mask"]
    assert not call(name, attention(torch.ones(2, 2)), shape).attributes["boolean_mask"]
    assert not call(name, attention(None), shape).attributes["boolean_mask"]


def test_upsampling_says_whether_it_filters():
    plain = call("upsample_bilinear2d", lambda u: F.interpolate(u, (2, 2), mode="bilinear"), (1, 1, 4, 4))
    filtered = call(
        "upsample_bilinear2d", lambda u: F.interpolate(u, (2, 2), mode="bilinear", antialias=True), (1, 1, 4, 4)
    )
    assert (plain.attributes["antialias"], filtered.attributes["antialias"]) == (False, True)


def test_least_squares_take_both_arrays_though_the_record_looks_at_one():
    found = call("linalg_lstsq", lambda a, b: torch.linalg.lstsq(a, b).solution, (4, 2), (4, 1))
    assert [o.shape for o in found.operands] == [(4, 2), (4, 1)]


def test_backward_kernels_in_a_program_say_that_they_are_pullbacks():
    def slope(u):
        return torch.autograd.grad(u.softmax(0).square().sum(), u, create_graph=True)[0]

    program = ns.capture(lambda u: slope(u).square().sum(), torch.rand(3))
    found = [TORCH.shaped(program, step) for step in program.steps]
    marks = [c.attributes.get("pullback", False) for c in found if c.operation == "softmax"]
    assert marks == [False, True]


def test_whole_numbers_and_truth_values_are_discrete():
    batches, index = torch.tensor(0), torch.tensor([2, 0])

    def function(x):
        batches.add_(1)
        chosen = x[(index + 1) % 3]
        labels = F.one_hot(index, 3)
        return (chosen * (x[:2] > 0.5) + (index > 0.5) * labels.sum(1) + (index < 1)).sum()

    program = ns.capture(function, torch.rand(3, 2))
    found = [TORCH.shaped(program, step) for step in program.steps]
    discrete = {c.operation: [d.discrete for d in found if d.operation == c.operation] for c in found}
    assert discrete["add"] == [True, True, False, False]  # the counter and the index, then two of real numbers
    assert discrete["remainder"] == [True]
    assert discrete["compare"][-3:] == [False, False, True]  # with 0.5, also of whole numbers, and with 1
    assert discrete["sum"] == [True, False]
    counted = {s.operation.name for s, c in zip(program.steps, found, strict=True) if tally_of(c).sweep().evaluation}
    assert counted == {"add", "mul", "compare", "sum"}


def test_batches_are_counted_by_no_operation():
    layer = torch.nn.BatchNorm1d(3)
    f, x = ns.objective(layer, step=lambda m, u: m(u).square().sum())
    program = ns.capture(f, x, torch.rand(4, 3))
    (count,) = [s for s in count_steps(program) if s.step.operation.name == "add"]
    assert count.sweep.backprop.total() == 0


def test_shapes_are_those_at_the_step_not_those_that_a_later_one_makes_in_place():
    def function(x):
        y = (x @ x.T).unsqueeze_(0).transpose_(0, 2)
        return y.squeeze_(2) * 2.0

    found = calls(function, torch.rand(2, 3))
    assert found["matmul"].results == ((2, 2),)
    assert found["unsqueeze"].results == ((1, 2, 2),)
    assert found["transpose"].results[0] in ((3, 2), (2, 2, 1))
    assert found["mul"].operands[0].shape == (2, 2)
