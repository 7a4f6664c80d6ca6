"""The object behind the `arrowquant` fixture: measures, records and asserts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import messages
from .audit import Audit
from .checkpoints.pairing import Pair
from .comparison import compare, records_of_rows, rows_of
from .errors import (
    AccuracyFailure,
    ArrowQuantError,
    CheckpointError,
    InvariantBroken,
    TargetError,
)
from .examine import examine
from .expectation import bounds_of_width, expect, validated
from .findings import Findings
from .metrics import Metrics
from .model_pass import Pass
from .plain import Plain, require_plain
from .quantizers import Quantizer
from .record_parts import pooled, quantizer_json, scheme_json
from .records import AccuracyRecord, record_of
from .scheme import Scheme
from .subject import Model, Subject
from .timing import join_benchmark
from .traits import traits_of
from .vocabulary import WIDTHS

if TYPE_CHECKING:
    from .invariants import Invariant


class Accuracy:
    """Measures restored weights against their reference, records the result and asserts it.

    `records` receives one AccuracyRecord a check. marker and project: the keywords of the test's
    marker, and the project's own targets a width. selfcheck: whether known faults are injected
    into what passes, to see which of them would have passed too.
    """

    def __init__(
        self,
        records: list[AccuracyRecord],
        name: str = "tensor",
        marker: Mapping[str, Any] | None = None,
        project: Mapping[int, Mapping[str, float]] | None = None,
        seed: int | None = None,
        selfcheck: bool = False,
    ) -> None:
        self.records = records
        self.name = name
        self.marker = marker or {}
        self.project = project or {}
        self.seed = seed
        self.selfcheck = selfcheck
        self.asserted = False
        self.invariants: list[Plain] = []

    def check(
        self,
        reference: object,
        restored: object,
        *,
        name: str | None = None,
        bits: int | None = None,
        inputs: object = None,
        nbytes: int | None = None,
        judge: str | None = None,
        **targets: Any,
    ) -> Metrics:
        """Measure, record and assert; returns the metrics.

        reference, restored: arrays of one shape (anything with `__array__` or DLPack; float16 to
        float64, bfloat16 included), or for `restored` a QuantizedTensor. bits: the width whose
        targets hold. inputs: (tokens, input channels), for output metrics. nbytes: bytes stored.
        targets: cosine, sqnr_db, row_cosine, output_cosine, guards. Raises AccuracyFailure where
        a bound is missed, ArrowQuantError for misuse.
        """
        __tracebackhide__ = True
        keywords = {"bits": bits, "judge": judge, **targets}
        metrics, failure = self._one(
            "arrowquant.check()", reference, restored, name, inputs, nbytes, keywords
        )
        self.asserted = True
        if failure:
            raise AccuracyFailure(failure)
        return metrics

    def measure(
        self,
        reference: object,
        restored: object,
        *,
        name: str | None = None,
        bits: int | None = None,
        inputs: object = None,
        nbytes: int | None = None,
        judge: str | None = None,
        **targets: Any,
    ) -> Metrics:
        """As check(), but asserts nothing: the record alone says whether it passed."""
        __tracebackhide__ = True
        keywords = {"bits": bits, "judge": judge, **targets}
        metrics, _ = self._one(
            "arrowquant.measure()", reference, restored, name, inputs, nbytes, keywords
        )
        self.records[-1].asserted = False
        return metrics

    def check_model(
        self,
        model: Model,
        quantizer: Quantizer,
        *,
        name: str | None = None,
        benchmark: Any = None,
        **keywords: Any,
    ) -> Metrics:
        """Quantize every layer, measure, record once and assert; returns the pooled metrics.

        One layer is in memory at a time. benchmark: pytest-benchmark's fixture, which times
        quantize, a round a layer. keywords: as in check(); `bits` is needed here or in the marker.
        A quantizer that needs calibration is given each layer's, and judged by held-out outputs.
        """
        __tracebackhide__ = True
        try:
            metrics, failure = self._model(
                model, quantizer, self.name if name is None else str(name), benchmark, keywords
            )
        except ArrowQuantError as error:
            raise error.with_traceback(None) from None
        self.asserted = True
        if failure:
            raise AccuracyFailure(failure)
        return metrics

    def check_recipes(
        self, model: Model, widths: Sequence[int] = WIDTHS, most_outputs: int | None = None
    ) -> None:
        """Record every recipe for the model at each pair of widths, and assert what is ours.

        widths: of weights. most_outputs: how many output channels of a layer are looked at. One
        record a recipe and pair, each with its gain over the baseline of its pair. Judged by
        held-out outputs of quantized weights and activations.
        """
        __tracebackhide__ = True
        source = "arrowquant.check_recipes()"
        held = {
            bits: expect(
                {"bits": bits, "judge": "outputs"}, self.marker, self.project, None, source
            )
            for bits in widths
        }
        rows = rows_of(model.subject, held)
        compare(model, rows, most_outputs)
        records = records_of_rows(model.subject, rows)
        for record in records:
            self._keep(record)
        self.asserted = True
        seed = self.seed if model.subject.kind == "synthetic" else None
        failures = [
            f"{record.name}\n{said}"
            for row, record in zip(rows, records, strict=True)
            if record.asserted and (said := messages.failure(row.results, row.expectation, seed))
        ]
        if failures:
            raise AccuracyFailure("\n".join(failures))

    def check_checkpoint(self, audit: Audit) -> None:
        """Assert what holds of a quantized checkpoint as a whole, beside its tensors."""
        __tracebackhide__ = True
        self.asserted = True
        if audit.problems:
            raise CheckpointError("\n".join(audit.problems))  # no record tells of them

    def check_pair(self, audit: Audit, pair: Pair) -> None:
        """Hold one tensor of a quantized checkpoint against its original, record and assert it."""
        __tracebackhide__ = True
        try:
            record, failure = audit.judge(pair, self.marker, self.project, self.selfcheck)
        except ArrowQuantError as error:
            raise error.with_traceback(None) from None
        self._keep(record)
        self.asserted = True
        if failure:
            raise AccuracyFailure(failure)

    def check_invariant(self, quantizer: Any, bits: int, invariant: "Invariant") -> None:
        """Hold a quantizer to an invariant on weights that hypothesis draws; record and assert.

        One that the quantizer says it lacks is tried and recorded, and fails nothing. Raises
        InvariantBroken with the smallest example that was found.
        """
        __tracebackhide__ = True
        from .conformance import broken_by

        traits = traits_of(quantizer)
        message = broken_by(quantizer, bits, invariant, self.seed or 0)
        lacks = traits.lacks.get(invariant.name)
        self.asserted = True
        self.invariants.append(
            {
                "quantizer": traits.name,
                "bits": bits,
                "invariant": invariant.name,
                "sentence": invariant.sentence,
                "lacks": lacks,
                "holds": not message,
                "message": message or None,
            }
        )
        require_plain(self.invariants[-1], "invariant")
        if message and lacks is None:
            raise InvariantBroken(message)

    def _model(
        self, model: Model, quantizer: Quantizer, name: str, benchmark: Any, keywords: Plain
    ) -> tuple[Metrics, str]:
        """Record a model; returns its metrics and the failure message, empty if it passed."""
        source = "arrowquant.check_model()"
        traits = traits_of(quantizer)
        given = validated(keywords, source)
        bits = given.get("bits", self.marker.get("bits"))
        if bits is None:
            raise TargetError(f"{source}: give bits, the width to quantize to")
        defaults = bounds_of_width(bits, self.project)
        expectation = expect(
            {**traits.keywords, **given}, {**defaults, **self.marker}, self.project, None, source
        )
        work = Pass(model, quantizer, expectation, self.selfcheck)
        work.run(benchmark)
        record = record_of(name, model.subject, work.results, expectation)
        record.quantizer = quantizer_json(quantizer)
        record.scheme = work.scheme
        record.timing = work.timing(benchmark)
        record.notes += work.notes
        seed = self.seed if model.subject.kind == "synthetic" else None
        work.findings.add_to(record)
        self._keep(record)
        return pooled(work.results), messages.failure(
            work.results, expectation, seed, work.findings.explanations
        )

    def _one(
        self,
        source: str,
        reference: object,
        restored: object,
        name: str | None,
        inputs: object,
        nbytes: int | None,
        keywords: Plain,
    ) -> tuple[Metrics, str]:
        """Record one tensor; returns its metrics and the failure message, empty if it passed."""
        __tracebackhide__ = True
        name = self.name if name is None else str(name)
        scheme = getattr(restored, "scheme", None)
        width = scheme.bits if isinstance(scheme, Scheme) else None
        try:
            expectation = expect(
                validated(keywords, source), self.marker, self.project, width, source
            )
            result = examine(name, reference, restored, expectation, inputs, nbytes)
            findings = Findings(self.selfcheck)
            findings.look_into(result, reference, restored, expectation, inputs)
        except ArrowQuantError as error:
            raise error.with_traceback(None) from None
        record = record_of(name, Subject(), [result], expectation)
        record.scheme = scheme_json(restored, expectation.bits)
        findings.add_to(record)
        self._keep(record)
        return result.metrics, messages.failure([result], expectation, None, findings.explanations)

    def _keep(self, record: AccuracyRecord) -> None:
        """Refuse here, inside the test, what would not survive the way to the controller."""
        require_plain(record.to_json(), "record")
        self.records.append(record)

    def join_benchmark(self, benchmark: Any) -> None:
        """Put pytest-benchmark's time beside the accuracy, in both reports."""
        join_benchmark(self.records, benchmark)
