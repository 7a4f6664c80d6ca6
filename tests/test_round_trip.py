"""Quantizers made of functions, what quantizers declare, and how what they do wrong is said."""

import re
import sys
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from pytest_arrowquant import Domain, QuantizerError, Rtn, roundtrip
from pytest_arrowquant.codes import Grid
from pytest_arrowquant.metrics import stored_bytes
from pytest_arrowquant.quantizers import QUANTIZERS
from pytest_arrowquant.traits import traits_of
from pytest_arrowquant.trial import quantized, restored, taken, with_grid

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def halves(weight):
    return np.rint(weight * 2) / 2


def restored_by(quantizer, weight=WEIGHT, bits=4, calibration=None):
    traits = traits_of(quantizer)
    given = taken(weight, traits, "tensor 'w'")
    result = quantized(quantizer, traits, given, bits, calibration, "tensor 'w'")
    return restored(result, traits, given, bits, "tensor 'w'")


def test_a_function_of_the_weight_alone():
    quantizer = roundtrip("mine", halves)
    assert (quantizer.name, quantizer.bits, quantizer.needs_calibration) == ("mine", (4,), False)
    np.testing.assert_array_equal(restored_by(quantizer), halves(WEIGHT))


@pytest.mark.parametrize(
    "function",
    [
        lambda weight, bits: weight * bits,
        lambda weight, width: weight * width,
        lambda weight, *, bits: weight * bits,
        lambda weight, group_size=64, bits=0: weight * bits,
    ],
    ids=["bits", "second", "keyword", "later"],
)
def test_a_function_is_told_the_width_where_it_asks(function):
    quantizer = roundtrip("mine", function, bits=(2, 8))
    assert quantizer.quantize(WEIGHT, 8).dequantize()[0, 1] == 8


def test_a_second_argument_with_a_default_is_left_alone():
    quantizer = roundtrip("mine", lambda weight, group_size=64: weight + group_size)
    assert quantizer.quantize(WEIGHT, 4).dequantize()[0, 0] == 64


def test_a_function_that_takes_calibration_is_given_it_and_judged_by_outputs():
    quantizer = roundtrip("mine", lambda weight, calibration: weight + calibration.sum())
    traits = traits_of(quantizer)
    assert traits.needs_calibration
    assert traits.by_outputs
    assert restored_by(quantizer, calibration=np.ones((2, 4)))[0, 0] == 8


def test_a_result_that_can_dequantize_is_handed_on():
    result = roundtrip("mine", lambda weight: Rtn().quantize(weight, 4)).quantize(WEIGHT, 4)
    assert result.nbytes == Rtn().quantize(WEIGHT, 4).nbytes


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_torch_is_imported_when_it_is_wanted_and_handed_a_copy(monkeypatch, dtype):
    """A stand-in for torch: what is asked of it is from_numpy, and a view as bfloat16."""

    class Tensor:
        nbytes = 4 * 12

        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

        def dequantize(self):
            raise AssertionError("a plain tensor is no quantized result")

        def view(self, dtype):
            return Tensor(self.array.view(dtype))

    torch = SimpleNamespace(from_numpy=Tensor, bfloat16=ml_dtypes.bfloat16)
    monkeypatch.setitem(sys.modules, "torch", torch)
    seen = []

    Tensor.__module__ = "torch"

    def function(tensor):
        seen.append(tensor)
        return Tensor(tensor.array.astype(np.float32))

    weight = WEIGHT.astype(dtype)
    weight.flags.writeable = False
    result = roundtrip("mine", function, framework="torch").quantize(weight, 4)
    np.testing.assert_array_equal(result.dequantize(), WEIGHT)
    assert stored_bytes(result) is None
    assert stored_bytes(result.dequantize()) is None
    assert seen[0].array.dtype == dtype
    assert not np.shares_memory(seen[0].array, weight)
    assert seen[0].array.flags.writeable


def test_torch_is_handed_the_memory_of_a_weight_that_may_be_written_to(monkeypatch):
    torch = SimpleNamespace(from_numpy=lambda array: array)
    monkeypatch.setitem(sys.modules, "torch", torch)
    quantizer = roundtrip("mine", lambda array: array.fill(0) or array * 1, framework="torch")
    weight = WEIGHT.copy()
    quantizer.quantize(weight, 4)
    assert not weight.any()
    backwards = WEIGHT.copy()[::-1]  # which torch does not know
    quantizer.quantize(backwards, 4)
    assert backwards.any()


def test_torch_is_not_imported_before():
    before = set(sys.modules)
    roundtrip("mine", halves, framework="torch")
    assert "torch" not in set(sys.modules) - before


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"function": 3}, "quantizer 'mine': function=3 cannot be called"),
        ({"framework": "jax"}, "quantizer 'mine': framework='jax' is not 'numpy' or 'torch'"),
        ({"bits": (2, 4)}, "has bits=(2, 4), and its function takes no `bits` to be told which"),
        ({"bits": "4"}, "quantizer 'mine': bits='4' is no width from 1 to 16, nor several"),
        ({"bits": 0}, "bits=0 is no width from 1 to 16"),
        ({"bits": (True,)}, "bits=(True,) is no width"),
        ({"granularity": "row"}, "granularity='row' is neither a number of weights along a row"),
        ({"granularity": 0}, "granularity=0 is neither"),
        ({"judge": "output"}, "judge='output' is not 'weights' or 'outputs'"),
        ({"properties": ("monotonic",)}, "properties has 'monotonic', which is none of zero_kept"),
        ({"lacks": {"finite": ""}}, "lacks['finite']='' is no reason; say why in words"),
        ({"domain": 32}, "domain=32 is not a Domain"),
        ({"guards": False}, "quantizer 'mine': guards=False is no mapping of names to reasons"),
        ({"lacks": ["finite"]}, "quantizer 'mine': lacks=['finite'] is no mapping of names to"),
        ({"properties": "zero_kept"}, "properties='zero_kept' is not a tuple of zero_kept, "),
        ({"guards": {"flor": "why"}}, "quantizer 'mine': guards: unknown guard 'flor'; valid are"),
        ({"guards": {"floor": ""}}, "guards['floor']='' is no reason; say why in words"),
    ],
)
def test_what_makes_no_sense_is_refused(keywords, message):
    with pytest.raises(QuantizerError, match=re.escape(message)):
        roundtrip(**{"name": "mine", "function": halves, **keywords})


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dtypes": ("int8",)}, "dtypes has 'int8', which is none of float16, bfloat16"),
        ({"dtypes": ()}, "dtypes=() is not a tuple of float16"),
        ({"dimensions": (5,)}, "dimensions has 5, which is none of 1, 2, 3, 4"),
        ({"columns_multiple": 0}, "columns_multiple=0 is not a whole number from 1"),
        ({"smallest": 2, "largest": 1}, "smallest=2 and largest=1 are no range of magnitudes"),
        ({"largest": float("inf")}, "largest=inf are no range"),
    ],
)
def test_a_domain_that_makes_no_sense_is_refused(keywords, message):
    with pytest.raises(QuantizerError, match=re.escape(message)):
        Domain(**keywords)


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        (SimpleNamespace(bits=4), "of type SimpleNamespace has name=None; expected a line of text"),
        (SimpleNamespace(name="a\nb", bits=4), "expected a line of text"),
        (halves, "is a function, not a quantizer; roundtrip(name, function) makes one"),
        (Rtn, "is a class, not a quantizer"),
        (SimpleNamespace(name="mine", bits=4), "quantizer 'mine' has no quantize(weight, bits"),
        (SimpleNamespace(name="mine", quantize=halves), "quantizer 'mine': bits=None is no width"),
    ],
)
def test_what_is_no_quantizer_is_refused(quantizer, message):
    with pytest.raises(QuantizerError, match=re.escape(message)):
        traits_of(quantizer)


def test_what_it_declares_becomes_the_keywords_of_checks():
    plain = roundtrip("mine", halves)
    fed = roundtrip("mine", halves, judge="outputs", guards={"order": "fed back"})
    assert traits_of(plain).keywords == {}
    assert traits_of(fed).keywords == {"judge": "outputs", "guards": {"order": "fed back"}}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_built_in_quantizers_declare_what_they_are(name):
    quantizer = QUANTIZERS[name]()
    traits = traits_of(quantizer)
    assert (traits.name, traits.bits) == (name, quantizer.bits)
    assert traits.by_outputs == (name == "gptq")


def raising(weight):
    raise ValueError("no rows")


def writing(weight):
    weight[0, 0] = 1
    return weight


class Broken:
    """Raises when it is restored."""

    def dequantize(self):
        raise KeyError("scale")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raising, "raised on tensor 'w' (3, 4) float32 at 4 bits: ValueError: no rows"),
        (writing, "weights are handed over read-only and must not be written to"),
        (lambda w: Broken(), "raised in dequantize() on tensor 'w' (3, 4) float32 at 4 bits: "),
        (lambda w: pytest.skip("not here"), "raised on tensor 'w' (3, 4) float32 at 4 bits: Skip"),
        (lambda w: Rtn().quantize(w, 3), "at 4 bits: SchemeError: bits=3 is not one of 2, 4, 8"),
        (lambda w: w, "returned its input itself"),
        (lambda w: w[:], "returned tensor 'w' itself, not restored values"),
        (lambda w: w[:2] * 1, "restored shape (2, 4) of tensor 'w' (3, 4) float32 at 4 bits"),
        (
            lambda w: w.astype(np.float16),
            "restored float16 of tensor 'w' (3, 4) float32 at 4 bits; expected float32",
        ),
        (lambda w: w.astype(np.int8), "what it restored is an array of int8; expected float16"),
        (lambda w: None, "what it restored is NoneType None; expected float16"),
    ],
)
def test_what_a_quantizer_does_wrong_is_said_by_its_name(function, message):
    with pytest.raises(QuantizerError, match=re.escape(message)) as caught:
        restored_by(roundtrip("mine", function))
    assert str(caught.value).startswith("quantizer 'mine' ")


def test_a_result_without_dequantize_is_said():
    quantizer = SimpleNamespace(name="mine", bits=4, quantize=lambda weight, bits: b"codes")
    with pytest.raises(QuantizerError, match="returned a bytes for tensor 'w', which has no deq"):
        restored_by(quantizer)


def test_weights_are_handed_over_as_the_quantizer_takes_them():
    seen = []
    domain = Domain(dtypes=("float32",), dimensions=(2,))
    quantizer = roundtrip("mine", lambda w: seen.append(w) or w * 1, domain=domain)
    restored_by(quantizer, WEIGHT.astype(np.float16).reshape(3, 2, 2))
    assert (seen[0].dtype, seen[0].shape) == (np.float32, (3, 4))
    assert not seen[0].flags.writeable
    restored_by(quantizer, WEIGHT.astype(np.float64))
    assert seen[1].dtype == np.float32


@pytest.mark.parametrize(("axes", "shape"), [(4, (3, 4, 1, 1)), (3, (3, 4, 1))])
def test_axes_are_added_for_a_quantizer_of_convolutions(axes, shape):
    quantizer = roundtrip("mine", lambda w: w * 1, domain=Domain(dimensions=(axes,)))
    assert restored_by(quantizer).shape == shape


def test_a_quantizer_of_vectors_takes_no_rows():
    quantizer = roundtrip("mine", lambda w: w * 1, domain=Domain(dimensions=(1,)))
    with pytest.raises(QuantizerError, match=r"takes vectors alone; tensor 'w' has shape \(3, 4\)"):
        restored_by(quantizer)


def test_a_weight_that_the_quantizers_dtype_cannot_hold_is_said():
    quantizer = roundtrip("mine", lambda w: w * 1, domain=Domain(dtypes=("float16",)))
    assert restored_by(quantizer).dtype == np.float16
    said = "takes float16; tensor 'w' is float32, and in float16 its largest would be infinite"
    with pytest.raises(QuantizerError, match=said):
        restored_by(quantizer, WEIGHT * 1e5)


def test_declared_granularity_tells_the_guards_the_groups():
    quantizer = roundtrip("mine", halves, granularity=32)
    result = quantizer.quantize(WEIGHT, 4)
    whole = with_grid(result, halves(WEIGHT), traits_of(quantizer), 4)
    assert whole.grid == Grid(4, None, 32)
    said = with_grid(Rtn(64, "integer").quantize(WEIGHT, 4), WEIGHT, traits_of(quantizer), 4)
    assert said.grid == Grid(4, "integer", 64)
