"""Accuracy tests for quantizers and quantized checkpoints.

Public names are resolved on first use, so that importing the package costs a pytest run nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .accuracy import Accuracy
    from .calibration import Calibration
    from .checkpoints.saving import load_checkpoint, save_checkpoint
    from .codes import Grid
    from .errors import (
        AccuracyFailure,
        ArrowQuantError,
        CheckpointError,
        InvariantBroken,
        OptionError,
        QuantizerError,
        SchemeError,
        TargetError,
        TensorError,
    )
    from .metrics import Metrics, measure
    from .models import synthetic_model
    from .planning import Choice, Plan, plan
    from .quantizers import COMPACT, QUANTIZERS, Gptq, Hqq, Mse, R2q, Rtn
    from .records import AccuracyRecord
    from .report.json_file import load_report
    from .round_trip import roundtrip
    from .scheme import Scheme
    from .super_blocks import SuperBlocks
    from .tensor import QuantizedTensor, quantize, quantize_and_compare
    from .traits import Domain

_HOMES = {
    "COMPACT": "quantizers",
    "Accuracy": "accuracy",
    "AccuracyFailure": "errors",
    "AccuracyRecord": "records",
    "ArrowQuantError": "errors",
    "Calibration": "calibration",
    "CheckpointError": "errors",
    "Choice": "planning",
    "Domain": "traits",
    "Gptq": "quantizers",
    "Grid": "codes",
    "Hqq": "quantizers",
    "InvariantBroken": "errors",
    "Metrics": "metrics",
    "Mse": "quantizers",
    "OptionError": "errors",
    "Plan": "planning",
    "QUANTIZERS": "quantizers",
    "QuantizedTensor": "tensor",
    "QuantizerError": "errors",
    "R2q": "quantizers",
    "Rtn": "quantizers",
    "Scheme": "scheme",
    "SchemeError": "errors",
    "SuperBlocks": "super_blocks",
    "TargetError": "errors",
    "TensorError": "errors",
    "load_checkpoint": "checkpoints.saving",
    "load_report": "report.json_file",
    "measure": "metrics",
    "plan": "planning",
    "quantize": "tensor",
    "quantize_and_compare": "tensor",
    "roundtrip": "round_trip",
    "save_checkpoint": "checkpoints.saving",
    "synthetic_model": "models",
}

_MODULES = ("invariants", "strategies")  # public as a whole

__all__ = [
    "COMPACT",
    "QUANTIZERS",
    "Accuracy",
    "AccuracyFailure",
    "AccuracyRecord",
    "ArrowQuantError",
    "Calibration",
    "CheckpointError",
    "Choice",
    "Domain",
    "Gptq",
    "Grid",
    "Hqq",
    "InvariantBroken",
    "Metrics",
    "Mse",
    "OptionError",
    "Plan",
    "QuantizedTensor",
    "QuantizerError",
    "R2q",
    "Rtn",
    "Scheme",
    "SchemeError",
    "SuperBlocks",
    "TargetError",
    "TensorError",
    "load_checkpoint",
    "load_report",
    "measure",
    "plan",
    "quantize",
    "quantize_and_compare",
    "roundtrip",
    "save_checkpoint",
    "synthetic_model",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
