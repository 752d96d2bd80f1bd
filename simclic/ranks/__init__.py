"""Processes that compute one pre-training together: each has the rows of every batch that its rank says.

Only the backbone is spread over them. Its vectors are gathered, so that all that follows, loss and history included, sees the
whole batch and is the same on every rank. In a single process all functions return what they are given.
"""

from simclic.ranks.group import agree, alone, check_same, count_ranks, first_alone, own_rank, own_rows
from simclic.ranks.join import LOOPBACK, join, reach_store, serve_store, tell_end, tell_failure, try_all_reduce, wait_for_parts
from simclic.ranks.spread import Spread, gather_output, gather_rows

__all__ = [
    "LOOPBACK", "Spread", "agree", "alone", "check_same", "count_ranks", "first_alone", "gather_output", "gather_rows", "join",
    "own_rank", "own_rows", "reach_store", "serve_store", "tell_end", "tell_failure", "try_all_reduce",
    "wait_for_parts",
]  # fmt: skip
