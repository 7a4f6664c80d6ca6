"""Audit: the pairs of two checkpoints, and the record of each."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import messages
from ..arrays import first_non_finite
from ..checkpoints import Checkpoint, open_checkpoint
from ..checkpoints.entries import Contents
from ..checkpoints.formats import read_contents
from ..checkpoints.pairing import Pair, Pairing, pair
from ..checkpoints.stored_tensor import FLOATS
from ..plain import Plain
from ..record_parts import explanation_json, selfcheck_json
from ..records import AccuracyRecord, record_of
from ..selfcheck import SelfCheck, selfcheck
from ..subject import Subject
from .explaining import Explainer
from .folds import Folds
from .judging import Bounds, Judged, judge
from .views import reference_of


class Audit:
    """A quantized checkpoint and, if given, its original: the pairs, and what each is worth.

    Raises CheckpointError for what cannot be opened or is of no known format.
    """

    def __init__(self, quantized: Path, original: Path | None = None) -> None:
        self.quantized = open_checkpoint(quantized)
        self.contents: Contents = read_contents(self.quantized)
        self.original: Checkpoint | None = None
        if original is None:
            self.pairing = _alone(self.contents)
        else:
            self.original = open_checkpoint(original)
            self.pairing = pair(self.original, self.quantized, self.contents)
        self.folds = Folds(self.pairing.pairs)
        self.explainer = Explainer(self.pairing.pairs, self.contents.format)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the checkpoint as a whole."""
        return (
            *self.pairing.problems,
            *_nothing(self.quantized, self.contents),
            *self._companions(),
        )

    def _companions(self) -> Iterator[str]:
        """Scales of activations and the like, which belong to no weight, that cannot be right."""
        for tensor in self.contents.companions:
            if tensor.stored_dtype not in FLOATS:
                continue
            values = tensor.array.astype(np.float32)
            if not np.isfinite(values).all():
                yield f"{tensor} has {first_non_finite(values)}; every value must be finite"
            elif tensor.name.endswith("scale") and not (values > 0).all():
                yield f"{tensor} has a scale of {float(values.min())}; scales are above 0"

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing of both checkpoints as a whole."""
        of_original = self.original.notes if self.original else ()
        return (*of_original, *self.quantized.notes, *self.pairing.notes)

    def judge(
        self, found: Pair, marker: Mapping[str, Any], project: Bounds, checked: bool = False
    ) -> tuple[AccuracyRecord, str]:
        """The record of one pair, and the message of its failure; empty if it passed.

        checked: known faults are injected into what passes.
        """
        judged = judge(found, self.folds, self.explainer, marker, project)
        selfchecks = [self._selfcheck(found, judged)] if checked and judged.checkable else []
        record = record_of(found.name, self._subject(found), [judged.result], judged.expectation)
        record.quantizer = self._quantizer(found)
        record.scheme = _scheme(judged)
        record.stored_as = _stored_as(found)
        record.notes += judged.notes
        record.selfcheck = selfcheck_json(selfchecks)
        failure = messages.failure([judged.result], judged.expectation)
        if failure and judged.explanation is not None:
            record.explanation = explanation_json(judged.explanation)
            failure += f"\n  {messages.cause(judged.explanation)}"
        elif failure and messages.NO_CAUSE in judged.notes:
            failure += f"\n  {messages.NO_CAUSE}"
        return record, failure

    def _selfcheck(self, found: Pair, judged: Judged) -> SelfCheck:
        assert judged.weight is not None
        reference = reference_of(found, judged.weight.shape)
        return selfcheck(found.name, reference, judged.weight, judged.expectation)

    def _subject(self, found: Pair) -> Subject:
        if found.entry is not None:
            return Subject("checkpoint", source=next(iter(found.entry.parts.values())).source)
        return Subject("checkpoint", source=self.quantized.path.name)

    def _quantizer(self, found: Pair) -> Plain:
        """The format, and what the checkpoint says of it; "plain" for what is not quantized."""
        if found.entry is None:
            return {"name": None, "options": {}}
        if found.entry.plain is not None:
            return {"name": "plain", "options": {}}
        return {"name": self.contents.format, "options": dict(self.contents.settings)}


def _nothing(checkpoint: Checkpoint, contents: Contents) -> Iterator[str]:
    """That there is nothing to audit, or nothing of what the config declares."""
    if not checkpoint.tensors:
        yield f"checkpoint {checkpoint.path.name} holds no tensor"
    method = checkpoint.quantization.get("quant_method")
    if method and not any(entry.load for entry in contents.entries.values()):
        yield f"the config says quant_method {method!r}, and no tensor is quantized"


def _stored_as(found: Pair) -> str:
    """How the quantized checkpoint holds a tensor: one of records.STORED_AS."""
    if found.entry is None:
        return "missing"
    return "quantized" if found.entry.load else "plain"


def _scheme(judged: Judged) -> Plain:
    """The scheme as a record has it."""
    if judged.weight is None:
        return {"bits": None, "group_size": None, "symmetric": None, "zero": None}
    grid = judged.weight.grid
    return {
        "bits": grid.bits,
        "group_size": grid.group_size,
        "symmetric": grid.zero == "none",
        "zero": grid.zero,
    }


def _alone(contents: Contents) -> Pairing:
    """A pair a weight of a checkpoint that comes without its original."""
    pairs = tuple(Pair(name, None, entry) for name, entry in contents.entries.items())
    return Pairing(pairs, ())
