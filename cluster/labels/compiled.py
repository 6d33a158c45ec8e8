"""Loops compiled by numba, where whole-array numpy would read the same memory several times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(*, parallel: bool = False, reorder_sums: bool = False) -> Callable[[Function], Function]:
    """Decorator: compile on first use, and keep the machine code on disk for the next process where a folder is writable.

    Args:
        parallel: `numba.prange` loops run on the threads that `cluster.session.session.set_threads` set.
        reorder_sums: sums may be split over vector lanes. The order is fixed when the loop is compiled, so on one kind of
            machine equal numbers give equal sums.
    """
    options: dict[str, Any] = {"nogil": True, "parallel": parallel}
    if reorder_sums:
        options["fastmath"] = {"reassoc", "contract", "nsz"}

    def decorate(function: Function) -> Function:
        try:
            return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # "cannot cache function": neither the code's folder nor the user's cache is writable
            return numba.njit(**options)(function)  # type: ignore[no-any-return]

    return decorate
