"""Which rows share a forward pass: those of like length, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Sequence

PASS_TOKENS = {"cpu": 64, "cuda": 4096}
"""What a forward pass costs beside its tokens, in tokens, by the type of the device. The figure
of GPUs is an estimate from their launch times, not measured."""


def row_groups(sizes: Sequence[int], *, pass_tokens: int) -> list[list[int]]:
    """Split rows into groups, each padded to its own longest row, at the least cost.

    A group of n rows, the longest of s tokens, costs ``n * s + pass_tokens``.

    Args:
        sizes: Tokens of each row, at least one row.
        pass_tokens: Cost of one more group, in tokens.

    Returns:
        Indices of the rows of each group; every row is in one.
    """
    order = sorted(range(len(sizes)), key=lambda row: sizes[row])
    # least[n]: cost of the n shortest rows, and where their last group begins.
    least = [(0, 0)]
    for end, last in enumerate(order, start=1):
        costs = ((least[i][0] + (end - i) * sizes[last] + pass_tokens, i) for i in range(end))
        least.append(min(costs))
    groups, end = [], len(order)
    while end:
        begin = least[end][1]
        groups.append(order[begin:end])
        end = begin
    return groups
