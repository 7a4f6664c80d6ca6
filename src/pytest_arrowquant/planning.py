"""plan(): the smallest width of each tensor that meets that width's own targets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from .arrays import as_floating, require_finite
from .checkpoints import open_checkpoint
from .checkpoints.safetensors_file import BITS
from .errors import TargetError
from .examine import TensorResult, examine
from .expectation import BOUNDS, expect, validated
from .plain import Plain
from .quantizers import Mse, Quantizer, needs_calibration
from .subject import Layer, Model
from .vocabulary import WIDTHS


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for one tensor.

    bits: the width, or None where no width meets its targets and the tensor stays as it is.
    cosine: at that width. stored_bytes: codes, scales and zeros; the tensor's own where it stays.
    reason: why it stays, with what each width misses; empty where a width was chosen.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bits: int | None
    cosine: float | None
    stored_bytes: int
    reason: str = ""

    @property
    def bits_per_weight(self) -> float:
        """Stored bits over weights."""
        return self.stored_bytes * 8 / max(prod(self.shape), 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """The choices in the order of the tensors; `str()` gives them as a table.

    left: tensors that no quantizer is put on (vectors, other types), which stay as they are.
    """

    quantizer: str
    choices: tuple[Choice, ...]
    left: tuple[Choice, ...] = ()

    @property
    def unmet(self) -> tuple[Choice, ...]:
        """The tensors that meet no width's targets."""
        return tuple(choice for choice in self.choices if choice.bits is None)

    @property
    def bits_per_weight(self) -> float:
        """True bits per weight of the whole, with what stays as it is."""
        whole = (*self.choices, *self.left)
        weights = sum(prod(choice.shape) for choice in whole)
        return sum(choice.stored_bytes for choice in whole) * 8 / max(weights, 1)

    def to_json(self) -> Plain:
        """The plan as plain values."""
        return {
            "quantizer": self.quantizer,
            "bits_per_weight": self.bits_per_weight,
            "choices": [_plain(choice) for choice in self.choices],
            "left": [_plain(choice) for choice in self.left],
        }

    def __str__(self) -> str:
        names = [choice.name for choice in self.choices]
        width = max(map(len, names), default=0)
        lines = [
            f"{choice.name:<{width}}  "
            + (
                f"{choice.bits} bits, cosine {choice.cosine:.6f}, "
                if choice.bits
                else f"stays {choice.dtype} ({choice.reason}), "
            )
            + f"{choice.bits_per_weight:.3f} bits per weight"
            for choice in self.choices
        ]
        total = f"{self.bits_per_weight:.3f} bits per weight by {self.quantizer}"
        unmet = f"; {len(self.unmet)} of {len(self.choices)} tensors meet no target"
        lines.append(total + (unmet if self.unmet else ""))
        return "\n".join(lines)


def plan(
    subject: str | Path | Model,
    widths: Sequence[int] = WIDTHS,
    quantizer: Quantizer | None = None,
    targets: Mapping[int, Mapping[str, float]] | None = None,
) -> Plan:
    """The smallest of `widths` for each tensor at which it meets that width's targets and guards.

    subject: a checkpoint by its path, or a model: named layers with a `weight`. quantizer:
    what is put on them, by default Mse, the best that needs no calibration. targets: bounds a
    width, over the default cosines, as in the marker. One tensor is in memory at a time. Raises
    TargetError for no width, and for one that the quantizer or the targets do not have.
    """
    quantizer = Mse() if quantizer is None else quantizer
    ordered = sorted(set(widths))
    unknown = [bits for bits in ordered if bits not in quantizer.bits]
    if not ordered or unknown:
        raise TargetError(
            f"widths={tuple(widths)!r} of {quantizer.name}; expected some of "
            f"{', '.join(map(str, quantizer.bits))}"
        )
    if needs_calibration(quantizer):
        raise TargetError(f"{quantizer.name} needs calibration; a plan is made of weights alone")
    bounds = {
        bits: {k: v for k, v in validated({"bits": bits, **given}, "plan()").items() if k in BOUNDS}
        for bits, given in (targets or {}).items()
    }
    layers, left = _tensors(subject)
    choices = tuple(_choose(layer, ordered, quantizer, bounds) for layer in layers)
    return Plan(quantizer.name, choices, left)


def _tensors(subject: str | Path | Model) -> tuple[Iterable[Layer], tuple[Choice, ...]]:
    """What can be quantized, and what is left as it is."""
    if not isinstance(subject, str | Path):
        return subject, ()
    file = open_checkpoint(Path(subject))
    left = tuple(
        Choice(
            tensor.name,
            tensor.shape,
            tensor.stored_dtype,
            None,
            None,
            tensor.stored_bytes,
            tensor.reason_left,
        )
        for tensor in file.left
    )
    return file.quantizable, left


def _choose(
    layer: Layer,
    widths: Sequence[int],
    quantizer: Quantizer,
    targets: Mapping[int, Mapping[str, float]],
) -> Choice:
    weight = as_floating(layer.weight, f"tensor {layer.name!r}")
    require_finite(weight, f"tensor {layer.name!r}")
    missed = []
    for bits in widths:
        expectation = expect({"bits": bits}, {}, targets, None, "plan()")
        quantized = quantizer.quantize(weight, bits)
        result = examine(layer.name, weight, quantized, expectation, None, None)
        if result.passed:
            cosine, nbytes = result.sums.cosine, result.nbytes
            if nbytes is None:
                raise TargetError(f"{quantizer.name} says no nbytes: a plan needs true sizes")
            return Choice(layer.name, weight.shape, weight.dtype.name, bits, cosine, nbytes)
        missed.append(f"{bits} bits: {_misses(result)}")
    reason = "; ".join(missed)
    return Choice(layer.name, weight.shape, weight.dtype.name, None, None, weight.nbytes, reason)


def plan_of_records(records: Sequence[Plain], left: Sequence[Plain]) -> Plan | None:
    """The plan that a run's records come to, where quantizers were put on a checkpoint's tensors.

    It is that of plan() with the quantizer that needs no calibration and was best, Mse, or the
    first there is. left: the tensors that none was put on, as a report has them. None where the
    records are of something else, or of quantizers that do not say what they store.
    """
    made = [
        record
        for record in records
        if record["subject"]["kind"] == "checkpoint"
        and not record.get("stored_as")
        and record["metrics"]["stored_bytes"] is not None
    ]
    names = {record["quantizer"]["name"] for record in made}
    if not made:
        return None
    chosen = Mse.name if Mse.name in names else min(names)
    by_tensor: dict[str, list[Plain]] = {}
    for record in sorted(made, key=lambda record: record["scheme"]["bits"]):
        if record["quantizer"]["name"] == chosen and record["layers"]["worst"]:
            by_tensor.setdefault(record["layers"]["worst"][0]["name"], []).append(record)
    choices = tuple(_choice(name, found) for name, found in sorted(by_tensor.items()))
    return Plan(chosen, choices, tuple(map(_left, left)))


def _choice(name: str, records: Sequence[Plain]) -> Choice:
    """Of the records of one tensor, the narrowest that passed."""
    shape, dtype = tuple(records[0]["layers"]["worst"][0]["shape"]), records[0]["subject"]["dtype"]
    for record in records:
        if record["passed"]:
            found = record["metrics"]
            bits = record["scheme"]["bits"]
            return Choice(name, shape, dtype, bits, found["cosine"], found["stored_bytes"])
    reason = "; ".join(
        f"{record['scheme']['bits']} bits: "
        + ", ".join(t["metric"] for t in record["targets"] if not t["passed"])
        for record in records
    )
    size = records[0]["metrics"]["original_bytes"]
    return Choice(name, shape, dtype, None, None, size, reason)


def _left(tensor: Plain) -> Choice:
    shape = tuple(tensor["shape"])
    size = -(-prod(shape) * BITS[tensor["dtype"]] // 8)
    return Choice(tensor["name"], shape, tensor["dtype"], None, None, size, tensor["reason"])


def _misses(result: TensorResult) -> str:
    """The bounds that a result misses, with their values."""
    findings = (outcome.finding for outcome in result.outcomes if not outcome.passed)
    return ", ".join(f"{f.metric} {f.value:.4g}, not {f.op} {f.bound:.4g}" for f in findings)


def _plain(choice: Choice) -> dict[str, Any]:
    return {
        **asdict(choice),
        "shape": list(choice.shape),
        "bits_per_weight": choice.bits_per_weight,
    }
