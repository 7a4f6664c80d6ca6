"""The audit of a quantized checkpoint: every weight against its original, a pair at a time."""

from .audit import Audit

__all__ = ["Audit"]
