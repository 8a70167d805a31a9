"""Pooling windows and ranks in plain Python loops."""

from __future__ import annotations


def naive_pool(
    image: list[list[float]],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[list[list[float]], list[list[dict[tuple[int, int], float]]]]:
    """Give the gap between the two largest entries of every window, and the even split over its tied entries."""
    sizes = len(image), len(image[0])
    counts = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True)
    ]
    gaps, shares = [], []
    for a in range(counts[0]):
        gap_row, share_row = [], []
        for b in range(counts[1]):
            cells = [
                (a * stride[0] - padding[0] + i * dilation[0], b * stride[1] - padding[1] + j * dilation[1])
                for i in range(kernel[0])
                for j in range(kernel[1])
            ]
            cells = [(i, j) for i, j in cells if 0 <= i < sizes[0] and 0 <= j < sizes[1]]
            values = sorted((image[i][j] for i, j in cells), reverse=True)
            gap_row.append(values[0] - values[1] if len(values) > 1 else float("inf"))
            tied = [c for c in cells if image[c[0]][c[1]] == values[0]]
            share_row.append({c: 1 / len(tied) for c in tied})
        gaps.append(gap_row)
        shares.append(share_row)
    return gaps, shares


def naive_ranks(values: list[float], tangents: list[float], rule: str) -> list[float]:
    """Sort tangents by their values; within a tied block average them, keep their order, or reverse it."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    result: list[float] = []
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        block = [tangents[i] for i in order[start:stop]]
        if rule == "even":
            block = [sum(block) / len(block)] * len(block)
        elif rule == "last":
            block.reverse()
        result += block
        start = stop
    return result
