"""The fixtures: what `arrowquant` accepts and says, and the kernels and models of a session."""

import re

import pytest

from .helpers import read_report

PLUGIN_FILES = ("accuracy.py", "examine.py", "arrays.py", "metrics.py", "targets.py", "tensor.py")
FIRST_LINES = """
import ml_dtypes
import numpy as np
import pytest

class OnlyArray:
    def __init__(self, array):
        self.array = array
    def __array__(self, dtype=None, copy=None):
        return self.array

class OnlyDlpack:
    def __init__(self, array):
        self.array = array
    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)
    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

"""


def run_body(project: pytest.Pytester, body: str, *arguments: str) -> pytest.RunResult:
    """One test of these lines, with `weights` and `restored`."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    project.makepyfile(f"{FIRST_LINES}\ndef test_it(arrowquant, weights, restored):\n{lines}")
    return project.runpytest(*arguments)


def message(result: pytest.RunResult) -> list[str]:
    """What the failed test says: the lines marked E, without the mark."""
    return [line[1:].strip() for line in result.outlines if line.startswith("E  ")]


def test_a_good_tensor_passes_and_its_record_is_in_the_report(project):
    result = run_body(
        project,
        "metrics = arrowquant.check(weights, restored, bits=4)\nassert metrics.cosine > 0.99",
        "--arrowquant-report=out",
    )
    result.assert_outcomes(passed=1)
    (record,) = read_report(project.path / "out")["records"]
    assert record["nodeid"].endswith("::test_it")
    assert record["name"] == "test_it"
    assert record["passed"] is True
    assert record["subject"] == {
        "kind": "array",
        "modality": None,
        "family": None,
        "source": None,
        "tensors": 1,
        "parameters": 64 * 128,
        "dtype": "float32",
    }


def test_a_failure_says_what_where_by_how_much_and_what_would_pass(project):
    result = run_body(
        project,
        "restored = restored.copy()\n"
        "restored[5] *= -1\n"
        "arrowquant.check(weights, restored, name='layer.7', bits=4, cosine=0.99, sqnr_db=19)",
    )
    result.assert_outcomes(failed=1)
    said = message(result)
    assert re.search(r"int4: 'layer\.7' \(64, 128\) float32 misses \d of \d+ bounds$", said[0])
    text = "\n".join(said)
    cosine = next(line for line in said if line.startswith("cosine "))
    value = float(cosine.split()[1].rstrip(","))
    assert 0.95 < value < 0.99
    bound, margin = re.match(r"cosine \S+ expected >= (\S+), margin (\S+)$", cosine).groups()
    assert (bound, float(margin)) == ("0.99", pytest.approx(value - 0.99, abs=1e-6))
    assert "row_sqnr_db -6" in text
    assert "(row 5), expected > 0, margin -6" in text
    assert "worst rows: 5 (cosine -0.99" in text
    assert said[-1].startswith("likely cause: row sign flipped (row 5): a row has the other sign. ")
    would_pass = said[-2].removeprefix("would pass with ").split(", ")
    bounds = {key: float(bound) for key, bound in (part.split("=") for part in would_pass)}
    assert set(bounds) == {"cosine", "sqnr_db"}
    assert value - 0.001 < bounds["cosine"] <= value


def test_the_bound_that_would_pass_does_pass(project):
    result = run_body(project, "arrowquant.check(weights, restored, cosine=0.9999, sqnr_db=40)")
    bounds = message(result)[-1].removeprefix("would pass with ")
    run_body(project, f"arrowquant.check(weights, restored, {bounds})").assert_outcomes(passed=1)


def test_a_failure_shows_no_line_of_the_plugin(project):
    result = run_body(project, "arrowquant.check(weights, 2 * restored, bits=4)")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([">       arrowquant.check(weights, 2 * restored, bits=4)"])
    assert not [file for file in PLUGIN_FILES if file in result.stdout.str()]


def test_a_test_may_expect_the_failure(project):
    result = run_body(
        project,
        "from pytest_arrowquant import AccuracyFailure\n"
        "with pytest.raises(AccuracyFailure, match='gain 0.49'):\n"
        "    arrowquant.check(weights, 2 * restored, bits=4)",
    )
    result.assert_outcomes(passed=1)


EXPECTED = "; expected float16, bfloat16, float32 or float64"
MISUSE = {
    "arrowquant.check(weights.astype(int), restored, bits=4)": (
        f"reference of 'test_it' is an array of int64{EXPECTED}"
    ),
    "arrowquant.check(weights, restored.astype(np.int8), bits=4)": (
        f"restored 'test_it' is an array of int8{EXPECTED}"
    ),
    "arrowquant.check(weights.astype(complex), restored, bits=4)": (
        f"reference of 'test_it' is an array of complex128{EXPECTED}"
    ),
    "arrowquant.check(weights.astype(object), restored, bits=4)": (
        f"reference of 'test_it' is an array of object{EXPECTED}"
    ),
    "arrowquant.check(weights > 0, restored, bits=4)": (
        f"reference of 'test_it' is an array of bool{EXPECTED}"
    ),
    "arrowquant.check(np.array([['a', 'b']]), restored, bits=4)": (
        f"reference of 'test_it' is an array of <U1{EXPECTED}"
    ),
    "arrowquant.check('weights', restored, bits=4)": (
        f"reference of 'test_it' is str 'weights'{EXPECTED}"
    ),
    "arrowquant.check(weights, None, bits=4)": f"restored 'test_it' is NoneType None{EXPECTED}",
    "arrowquant.check([[1, 2], [3]], restored, bits=4)": (
        "reference of 'test_it' is list [[1, 2], [3]], not an array: "
    ),
    "arrowquant.check([[1, 2], [3, 4]], restored, bits=4)": (
        f"reference of 'test_it' is an array of int64{EXPECTED}"
    ),
    "weights = weights.copy(); weights[3, 7] = np.nan; "
    "arrowquant.check(weights, restored, name='w', bits=4)": (
        "reference of 'w' has nan at index (3, 7); every value must be finite"
    ),
    "weights = weights.copy(); weights[63, 0] = -np.inf; "
    "arrowquant.check(weights, restored, name='w', bits=4)": (
        "reference of 'w' has -inf at index (63, 0); every value must be finite"
    ),
    "arrowquant.check(weights, restored)": (
        "arrowquant.check(): no bits and no target given; "
        "give one of cosine, sqnr_db, row_cosine, output_cosine"
    ),
    "arrowquant.check(weights, restored, bits=3)": (
        "arrowquant.check(): bits=3 has no default target and no target given; "
        "give one of cosine, sqnr_db, row_cosine, output_cosine"
    ),
    "arrowquant.check(weights, restored, bits=4, cosin=0.9)": (
        "arrowquant.check(): unknown keyword 'cosin' (did you mean 'cosine'?); valid are bits, "
        "cosine, sqnr_db, row_cosine, output_cosine, guards, judge"
    ),
    "arrowquant.measure(weights, restored, bits=4, cosine=2)": (
        "arrowquant.measure(): cosine=2 is not above -1 and at most 1"
    ),
    "arrowquant.check(weights, restored, bits=4, judge='outputs')": (
        "judge='outputs' needs inputs: pass inputs=, (tokens, input channels)"
    ),
    "arrowquant.check(weights, restored, bits=4, output_cosine=0.9)": (
        "output_cosine needs inputs: pass inputs=, an array of (tokens, input channels)"
    ),
    "arrowquant.check(weights, restored, bits=4, inputs=np.ones((9, 7)))": (
        "inputs has shape (9, 7); a weight of shape (64, 128) takes (tokens, 128)"
    ),
}


@pytest.mark.parametrize("line", MISUSE)
def test_misuse_is_said_in_one_line(project, line):
    result = run_body(project, line)
    result.assert_outcomes(failed=1)
    (said,) = message(result)
    assert MISUSE[line] in said


@pytest.mark.parametrize("line", MISUSE)
def test_misuse_shows_no_line_of_the_plugin(project, line):
    result = run_body(project, line)
    assert not [file for file in PLUGIN_FILES if file in result.stdout.str()]


def test_another_shape_is_a_failure_and_a_record(project):
    result = run_body(
        project, "arrowquant.check(weights, restored[:5], bits=4)", "--arrowquant-report=out"
    )
    result.assert_outcomes(failed=1)
    assert message(result)[1] == "complete: restored has shape (5, 128), the reference (64, 128)"
    (record,) = read_report(project.path / "out")["records"]
    assert record["passed"] is False
    assert record["notes"] == ["test_it: restored has shape (5, 128), the reference (64, 128)"]
    assert set(record["metrics"].values()) == {None}


def test_nan_in_the_restored_tensor_is_a_failure_that_names_the_index(project):
    result = run_body(
        project,
        "restored = restored.copy()\n"
        "restored[3, 7] = np.nan\n"
        "arrowquant.check(weights, restored, name='w', bits=4)",
    )
    result.assert_outcomes(failed=1)
    assert message(result)[1] == "complete: restored has nan at index (3, 7)"


def test_every_floating_type_is_measured_at_its_own_values(project):
    project.makepyfile(
        FIRST_LINES
        + """
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_it(arrowquant, arrowquant_int8, weights, dtype):
    own = weights.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    q = arrowquant_int8.quantize(own)
    metrics = arrowquant.check(own, q)
    assert metrics.original_bytes == own.nbytes
    assert arrowquant.check(own, own, bits=8).max_abs_error == 0
"""
    )
    project.runpytest("--arrowquant-report=out").assert_outcomes(passed=4)
    records = read_report(project.path / "out")["records"]
    assert sorted({record["subject"]["dtype"] for record in records}) == [
        "bfloat16",
        "float16",
        "float32",
        "float64",
    ]
    assert all("sqnr_db is null: its value is inf" in r["notes"] for r in records if r["index"])


@pytest.mark.parametrize(
    ("reference", "restored"),
    [
        ("np.full((8, 64), 1.7e308)", "np.full((8, 64), 1.7e308)"),
        ("weights.astype(float)", "np.full((64, 128), 1.7e308)"),
        ("np.zeros((8, 64))", "np.full((8, 64), 1.7e308)"),
        ("weights.astype(float) * 1e-310", "np.ones((64, 128))"),
        ("np.ones((1, 1))", "np.full((1, 1), 1.7e308)"),
        ("np.full((8, 64), 5e-324)", "np.zeros((8, 64))"),
    ],
)
def test_finite_values_however_large_or_small_get_a_verdict(project, reference, restored):
    result = run_body(
        project,
        "from pytest_arrowquant import AccuracyFailure\n"
        f"reference, restored = {reference}, {restored}\n"
        "try:\n"
        "    arrowquant.check(reference, restored, bits=4)\n"
        "except AccuracyFailure:\n"
        "    assert not np.array_equal(reference, restored)",
        "-Werror::RuntimeWarning",
        "--tb=short",
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("kind", ["OnlyArray", "OnlyDlpack"])
def test_anything_with_array_or_dlpack_is_accepted(project, kind):
    result = run_body(
        project,
        f"metrics = arrowquant.check({kind}(weights), {kind}(restored), bits=4)\n"
        "assert metrics.max_abs_error == np.abs(weights - restored).max()",
    )
    result.assert_outcomes(passed=1)


def test_lists_of_floats_are_measured_as_float64(project):
    result = run_body(
        project,
        "metrics = arrowquant.check(weights.tolist(), restored.tolist(), bits=4)\n"
        "assert metrics.original_bytes == 8 * weights.size",
    )
    result.assert_outcomes(passed=1)


def test_arrays_are_left_as_they_were(project):
    result = run_body(
        project,
        "before = weights.tobytes(), restored.tobytes()\n"
        "weights.setflags(write=False); restored.setflags(write=False)\n"
        "arrowquant.check(weights, restored, bits=4)\n"
        "assert (weights.tobytes(), restored.tobytes()) == before",
    )
    result.assert_outcomes(passed=1)


def test_any_object_that_dequantizes_is_accepted_with_its_bytes(project):
    result = run_body(
        project,
        "class Mine:\n"
        "    nbytes = 4096\n"
        "    def dequantize(self):\n"
        "        return restored\n"
        "assert arrowquant.check(weights, Mine(), bits=4).bits_per_weight == 4.0\n"
        "given = arrowquant.check(weights, restored, bits=4, nbytes=4608)\n"
        "assert (given.bits_per_weight, given.compression_ratio) == (4.5, 64 * 128 * 4 / 4608)",
    )
    result.assert_outcomes(passed=1)


def test_outputs_are_judged_where_asked_for(project):
    result = run_body(
        project,
        "inputs = np.random.default_rng(1).standard_normal((200, 128))\n"
        "arrowquant.check(weights, restored, bits=4, inputs=inputs, judge='outputs')",
        "--arrowquant-report=out",
    )
    result.assert_outcomes(passed=1)
    (record,) = read_report(project.path / "out")["records"]
    metrics = [target["metric"] for target in record["targets"]]
    assert metrics[0] == "output_cosine"
    assert not {"cosine", "order"} & set(metrics)
    assert record["metrics"]["output_cosine"] == record["targets"][0]["value"] > 0.99
    note = (
        "judged by outputs: output_cosine, gain are of inputs @ weights.T; "
        "bias, floor the worse of there and in the weights"
    )
    assert record["notes"] == [note]


def test_the_fixture_may_be_asked_for_by_name(project):
    project.makepyfile(
        """
        def test_it(request, weights, restored):
            request.getfixturevalue("arrowquant").check(weights, restored, bits=4)
        """
    )
    project.runpytest().assert_outcomes(passed=1)


def test_the_fixture_reaches_a_test_through_another_fixture(project):
    project.makepyfile(
        """
        import pytest

        @pytest.fixture
        def held(arrowquant, weights):
            return lambda restored: arrowquant.check(weights, restored)

        @pytest.mark.arrowquant_int4
        def test_it(held, restored):
            held(restored)
        """
    )
    result = project.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["passed  test_it *", "1 of 1 records passed"])


def test_kernels_of_each_width_quantize_restore_and_compare(project):
    project.makepyfile(
        """
        import numpy as np

        def test_by_name(arrowquant_int2, arrowquant_int4, arrowquant_int8):
            assert arrowquant_int2.bits == 2
            assert arrowquant_int4.bits == 4
            assert arrowquant_int8.bits == 8

        def test_each(arrowquant_kernels, weights):
            q = arrowquant_kernels.quantize(weights, group_size=32, symmetric=False)
            restored = arrowquant_kernels.dequantize(q)
            sums = arrowquant_kernels.compare(weights, q)
            assert q.codes.nbytes == weights.size * arrowquant_kernels.bits // 8
            assert (restored.dtype, restored.shape) == (np.float32, weights.shape)
            assert np.allclose(sums[:, 2], ((weights - restored) ** 2).sum(axis=1))

        def test_out_is_filled_and_returned(arrowquant_kernels, weights):
            fresh = arrowquant_kernels.quantize(weights)
            other = arrowquant_kernels.quantize(weights[::-1])
            codes = other.codes
            assert arrowquant_kernels.quantize(weights, out=other) is other
            assert other.codes is codes
            assert np.array_equal(codes, fresh.codes)
            room = np.full_like(weights, np.nan)
            assert arrowquant_kernels.dequantize(fresh, out=room) is room
            assert np.array_equal(room, fresh.dequantize())
        """
    )
    result = project.runpytest("-v")
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(
        [f"*::test_each?int{bits}? PASSED*" for bits in (2, 4, 8)], consecutive=False
    )


def test_kernels_refuse_an_out_that_does_not_fit(project):
    project.makepyfile(
        """
        import numpy as np

        def test_codes(arrowquant_int4, weights):
            arrowquant_int4.quantize(weights, out=arrowquant_int4.quantize(weights[:5]))

        def test_values(arrowquant_int4, weights):
            arrowquant_int4.dequantize(arrowquant_int4.quantize(weights), out=np.empty((64, 128)))
        """
    )
    result = project.runpytest()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "E*TensorError: out is Scheme(*) (5, 128); x needs Scheme(*) (64, 128)",
            "E*TensorError: out is float64 (64, 128); expected *C-contiguous float32 (64, 128)",
        ]
    )


def test_models_come_one_by_one_and_parametrized_over_the_modalities(project):
    project.makepyfile(
        """
        def test_each(arrowquant_model): ...
        """
    )
    result = project.runpytest("--collect-only", "-q")
    result.stdout.fnmatch_lines(
        [f"*::test_each?{modality}?" for modality in ("text", "code", "image", "audio")]
    )


def test_a_model_is_layers_with_a_name_and_a_read_only_weight(project):
    project.makepyfile(
        """
        import numpy as np
        import pytest

        FAMILIES = {"text": "mdlm", "code": "code", "image": "dit", "audio": "wavegrad"}

        @pytest.mark.parametrize("modality", FAMILIES)
        def test_first_family(request, modality, arrowquant_models):
            model = request.getfixturevalue(f"arrowquant_{modality}_model")
            assert (model.subject.modality, model.subject.family) == (modality, FAMILIES[modality])
            by_family, by_modality = (
                arrowquant_models(name) for name in (FAMILIES[modality], modality)
            )
            names = [layer.name for layer in model]
            assert names == [layer.name for layer in by_family]
            assert names == [layer.name for layer in by_modality]
            assert len(set(names)) == len(model)

        def test_layers(arrowquant_audio_model):
            layer = next(iter(arrowquant_audio_model))
            assert layer.weight.dtype == np.float32
            assert np.array_equal(layer.weight, layer.weight)
            with pytest.raises(ValueError, match="read-only"):
                layer.weight[0] = 0

        def test_scale(arrowquant_models):
            assert len(arrowquant_models("audio", "full")) > len(arrowquant_models("audio"))
        """
    )
    project.runpytest().assert_outcomes(passed=6)


def test_models_are_drawn_from_the_seed_of_the_run(project):
    project.makepyfile(
        """
        import numpy as np
        from pytest_arrowquant import synthetic_model

        def test_it(arrowquant_audio_model):
            drawn, seven = (next(iter(m)).weight for m in (
                arrowquant_audio_model, synthetic_model("audio", seed=7)))
            assert np.array_equal(drawn, seven)
        """
    )
    project.runpytest("--arrowquant-seed=7").assert_outcomes(passed=1)
    project.runpytest("--arrowquant-seed=8").assert_outcomes(failed=1)


def test_an_unknown_family_or_scale_names_what_there_is(project):
    project.makepyfile(
        """
        def test_family(arrowquant_models):
            arrowquant_models("video")

        def test_scale(arrowquant_models):
            arrowquant_models("text", "huge")
        """
    )
    result = project.runpytest()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "E*OptionError: unknown model family 'video'; known are *",
            "E*OptionError: scale='huge' is not 'small' or 'full'",
        ]
    )
    known = next(line for line in message(result) if "; known are " in line)
    for name in ("text", "code", "image", "audio", "mdlm", "dit", "wavegrad"):
        assert name in known.partition("; known are ")[2]


def test_session_fixtures_work_within_given(project):
    """Neither a health check for their scope nor a deadline for their compilation."""
    project.makepyfile(
        """
        import numpy as np
        from hypothesis import given, settings
        from hypothesis import strategies as st

        @settings(max_examples=20, database=None)
        @given(seed=st.integers(0, 2**32 - 1))
        def test_kernels(arrowquant_kernels, seed):
            x = np.random.default_rng(seed).standard_normal((4, 64), dtype=np.float32)
            q = arrowquant_kernels.quantize(x)
            assert arrowquant_kernels.compare(x, q).shape == (4, 4)
            assert arrowquant_kernels.dequantize(q).shape == x.shape

        @settings(max_examples=5, database=None)
        @given(index=st.integers(0, 3))
        def test_model(arrowquant_audio_model, arrowquant_models, index):
            assert list(arrowquant_audio_model)[index].name
        """
    )
    project.runpytest_subprocess("-p", "no:cacheprovider", "-Werror").assert_outcomes(passed=4)
