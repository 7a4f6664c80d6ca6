"""The one place that decides how kernels are compiled."""

from collections.abc import Callable
from typing import Any

import numba

Function = Callable[..., Any]


def kernel(
    *, reassociate: bool = False, fuse: bool = False, inline: bool = False
) -> Callable[[Function], Function]:
    """Compile on the first call, and keep the machine code on disk where a cache can be written.

    `reassociate` lets sums be reordered, and so vectorised; never for what makes codes. `inline` is
    for what runs once a group: a call counts references to arrays, which takes as long as the
    group, and hides from LLVM how often a loop turns.
    """
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {flag for flag, on in (("reassoc", reassociate), ("contract", fuse)) if on},
        "forceinline": inline,
    }

    def decorate(function: Function) -> Function:
        try:
            return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
        except RuntimeError as error:  # a read-only installation without a home directory
            if "no locator available" not in str(error):
                raise
            return numba.njit(**options)(function)  # type: ignore[no-any-return]

    return decorate
