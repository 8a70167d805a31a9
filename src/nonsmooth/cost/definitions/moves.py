"""What moves, casts, makes or compares numbers: moves are free, comparisons count."""

from __future__ import annotations

from math import prod

from nonsmooth.cost.definitions.definition import Called, define

__all__: list[str] = []


@define(
    *(
        "view reshape flatten unflatten squeeze unsqueeze expand permute transpose t moveaxis select slice narrow split "
        "chunk unbind cat stack repeat tile flip roll diagonal diag diag_embed tril triu gather take index index_select "
        "masked_select index_fill masked_scatter constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d unfold pixel_shuffle pixel_unshuffle channel_shuffle "
        "as_strided clone detach copy fill zero cast contiguous lift max_unpool2d max_unpool3d logic integer create "
        "random nonzero item is_nonzero view_as_real view_as_complex nan_to_num rot90 block_diag index_copy "
        "slice_scatter select_scatter diagonal_scatter as_strided_scatter repeat_interleave constant scatter"
    ).split()
)
def move(call: Called) -> None:
    """Other names of the same numbers, or numbers that integer and logical work makes."""


@define("compare")
def compare(call: Called) -> None:
    """One comparison for each entry of the result."""
    call.tally.add("compare", "", prod(call.shape))


@define("equal", "allclose")
def compare_arrays(call: Called) -> None:
    """One comparison for each pair of entries."""
    call.tally.add("compare", "", max(operand.size for operand in call.operands))
