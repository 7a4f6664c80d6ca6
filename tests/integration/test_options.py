"""Options and their ini twins: what they do, what wins, and how bad values read."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from .helpers import ACCURACY, new_in_pytest_9, read_report

COLLECT = ("--arrowquant-accuracy", "--collect-only", "-q")
OPTIONS = (
    "--arrowquant-accuracy",
    "--arrowquant-report",
    "--arrowquant-bits",
    "--arrowquant-modalities",
    "--arrowquant-quantizers",
    "--arrowquant-scale",
    "--arrowquant-seed",
    "--arrowquant-original",
)
FAMILIES = {
    "text": ("mdlm", "sedd"),
    "code": ("code",),
    "image": ("dit", "vae"),
    "audio": ("wavegrad",),
}
TWINS = ("report", "bits", "modalities", "quantizers", "scale", "seed", "targets")


def ids(result: pytest.RunResult) -> list[str]:
    """What stands between the brackets of the collected tests."""
    return [line.partition("[")[2].rstrip("]") for line in result.outlines if "::test_" in line]


def of_label(label: str, bits: str, quantizers: str) -> list[str]:
    return [
        f"{label}-int{width}-{quantizer}"
        for width in bits.split(",")
        for quantizer in quantizers.split(",")
        if width == "2" or quantizer != "r2q"  # which has two bits only
    ]


def labelled(modalities: str) -> list[tuple[str, str]]:
    """(label, family); the first family of a modality goes by the modality's name."""
    return [
        (family if at else modality, family)
        for modality in modalities.split(",")
        for at, family in enumerate(FAMILIES[modality])
    ]


def grid(modalities: str, bits: str, quantizers: str) -> list[str]:
    return [each for label, _ in labelled(modalities) for each in of_label(label, bits, quantizers)]


def suite(modalities: str, bits: str) -> list[str]:
    """Of each family the recipes, which take longest, then every quantizer that needs no inputs."""
    return [
        each
        for label, family in labelled(modalities)
        for each in (family, *of_label(label, bits, "rtn,mse,hqq,r2q"))
    ]


def write_ini(project: pytest.Pytester, kind: str, name: str, value: str) -> None:
    if kind == "pytest.ini":
        project.makeini(f"[pytest]\n{name} = {value}")
    else:
        project.makepyprojecttoml(f"[tool.pytest.ini_options]\n{name} = '{value}'")


def assert_usage_error(result: pytest.RunResult, text: str) -> None:
    """Exit 4, the text in what is said, and no traceback."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text in result.stderr.str()
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_help_lists_every_option_and_ini_setting(project):
    output = project.runpytest("--help").stdout.str()
    assert "accuracy of quantization:" in output
    for name in (*OPTIONS, *(f"arrowquant_{twin} (" for twin in TWINS)):
        assert name in output


def test_without_narrowing_the_suite_is_all_modalities_widths_and_quantizers(project):
    assert ids(project.runpytest(*COLLECT)) == suite("text,code,image,audio", "2,4,8")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("bits", "4", suite("text,code,image,audio", "4")),
        ("bits", "8, 2", suite("text,code,image,audio", "2,8")),
        ("modalities", "audio,text", suite("text,audio", "2,4,8")),
        ("quantizers", "mse", grid("text,code,image,audio", "2,4,8", "mse")),
        ("quantizers", "mse,rtn,mse", grid("text,code,image,audio", "2,4,8", "rtn,mse")),
    ],
)
def test_options_and_ini_narrow_the_suite_alike(project, option, value, expected):
    assert ids(project.runpytest(*COLLECT, f"--arrowquant-{option}={value}")) == expected
    write_ini(project, "pytest.ini", f"arrowquant_{option}", value)
    assert ids(project.runpytest(*COLLECT)) == expected


@pytest.mark.parametrize("kind", ["pytest.ini", "pyproject.toml"])
def test_seed_and_scale_have_ini_twins(project, kind):
    project.makepyfile(
        """
        import numpy as np
        from pytest_arrowquant import synthetic_model

        def test_it(arrowquant_audio_model):
            expected = synthetic_model("audio", "full", 7)
            assert len(arrowquant_audio_model) == len(expected)
            drawn, seven = (next(iter(m)).weight for m in (arrowquant_audio_model, expected))
            assert np.array_equal(drawn, seven)
        """
    )
    lines = "arrowquant_seed = {0}7{0}\narrowquant_scale = {0}full{0}"
    if kind == "pytest.ini":
        project.makeini("[pytest]\n" + lines.format(""))
    else:
        project.makepyprojecttoml("[tool.pytest.ini_options]\n" + lines.format("'"))
    project.runpytest().assert_outcomes(passed=1)


@new_in_pytest_9
def test_a_number_is_a_seed_in_native_toml(project):
    project.makepyprojecttoml("[tool.pytest]\narrowquant_seed = 7")
    project.makepyfile("def test_it(arrowquant_audio_model): pass")
    project.runpytest().assert_outcomes(passed=1)


@pytest.mark.parametrize("kind", ["pytest.ini", "pyproject.toml"])
def test_the_report_folder_has_an_ini_twin(project, kind):
    write_ini(project, kind, "arrowquant_report", "from_ini")
    project.makepyfile(
        """
        def test_it(arrowquant, weights, restored):
            arrowquant.check(weights, restored, bits=4)
        """
    )
    project.runpytest()
    assert read_report(project.path / "from_ini")["summary"]["records"] == 1


def test_the_command_line_wins_over_ini(project):
    project.makeini("[pytest]\narrowquant_bits = 2\narrowquant_modalities = nonsense")
    result = project.runpytest(*COLLECT, "--arrowquant-bits=8", "--arrowquant-modalities=code")
    assert ids(result) == suite("code", "8")


BAD = {
    "--arrowquant-bits=3": "'3' names '3', which is none of the bits 2, 4, 8",
    "--arrowquant-bits=": "'' names '', which is none of the bits 2, 4, 8",
    "--arrowquant-modalities=text,video": (
        "'text,video' names 'video', which is none of the modalities text, code, image, audio"
    ),
    "--arrowquant-quantizers=rtn,": "'rtn,' has an empty name; expected names like 'rtn,mse'",
    "--arrowquant-scale=large": "'large' is not 'small' or 'full'",
    "--arrowquant-seed=-1": "'-1' is not a whole number from 0",
    "--arrowquant-seed=one": "'one' is not a whole number from 0",
}


@pytest.mark.parametrize("argument", BAD)
def test_a_bad_value_is_a_usage_error_that_repeats_it(project, argument):
    option = argument.partition("=")[0]
    assert_usage_error(project.runpytest(argument), f"argument {option}: {BAD[argument]}")


@pytest.mark.parametrize("argument", [key for key in BAD if not key.endswith("=")])
@pytest.mark.parametrize("kind", ["pytest.ini", "pyproject.toml"])
def test_a_bad_ini_value_is_a_usage_error_that_names_the_setting(project, kind, argument):
    option, _, value = argument.partition("=")
    name = option.removeprefix("--").replace("-", "_")
    write_ini(project, kind, name, value)
    said = BAD[argument] if value != "one" else "invalid literal for int() with base 10: 'one'"
    assert_usage_error(project.runpytest(), f"ERROR: {name}: {said}")


def test_a_quantizer_that_there_is_not_is_a_usage_error(project):
    said = (
        "arrowquant_quantizers: 'awq' is none of the built-in quantizers rtn, mse, hqq, r2q, gptq"
    )
    result = project.runpytest("--arrowquant-quantizers=awq", "--arrowquant-accuracy")
    assert_usage_error(result, f"ERROR: {said}")
    write_ini(project, "pytest.ini", "arrowquant_quantizers", "awq")
    assert_usage_error(project.runpytest("--arrowquant-accuracy"), f"ERROR: {said}")


def test_a_report_without_a_folder_is_a_usage_error(project):
    assert_usage_error(
        project.runpytest("--arrowquant-report="),
        "argument --arrowquant-report: '' names no folder",
    )


BAD_TARGETS = {
    "4 cosine=0.97": "arrowquant_targets: '4 cosine=0.97' is not like '4: cosine=0.97, sqnr_db=18'",
    "four: cosine=0.97": "'four: cosine=0.97' is not like '4: cosine=0.97, sqnr_db=18'",
    "4: cosine": "'cosine' in '4: cosine' is not like 'cosine=0.97'",
    "4: cosine=high": "'cosine=high' in '4: cosine=high' is not like 'cosine=0.97'",
    "4: cosin=0.97": "arrowquant_targets: unknown keyword 'cosin' (did you mean 'cosine'?)",
    "4: cosine=1.5": "arrowquant_targets: cosine=1.5 is not above -1 and at most 1",
    "99: cosine=0.97": "99",  # no test can be of that width
}


@pytest.mark.parametrize("line", BAD_TARGETS)
def test_a_bad_target_in_ini_is_a_usage_error(project, line):
    project.makeini(f"[pytest]\narrowquant_targets =\n    8: cosine=0.99\n    {line}")
    assert_usage_error(project.runpytest(), BAD_TARGETS[line])


def test_call_site_marker_ini_default_in_this_order(project):
    project.makeini(
        "[pytest]\narrowquant_targets =\n    4: cosine=0.92, sqnr_db=18\n    3: cosine=0.81"
    )
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant(bits=4, cosine=0.93)
        def test_1_call(arrowquant, weights, restored):
            arrowquant.check(weights, restored, cosine=0.94)

        @pytest.mark.arrowquant(bits=4, cosine=0.93)
        def test_2_marker(arrowquant, weights, restored):
            arrowquant.check(weights, restored)

        @pytest.mark.arrowquant_int4
        def test_3_ini(arrowquant, weights, restored):
            arrowquant.check(weights, restored)

        @pytest.mark.arrowquant_int8
        def test_4_default(arrowquant, weights):
            arrowquant.check(weights, weights)

        @pytest.mark.arrowquant(bits=3)
        def test_5_a_width_of_ini_alone(arrowquant, weights, restored):
            arrowquant.check(weights, restored, guards=False)
        """
    )
    project.runpytest("--arrowquant-report=out").assert_outcomes(passed=5)
    bounds = [
        {t["metric"]: t["bound"] for t in record["targets"] if t["metric"] in ("cosine", "sqnr_db")}
        for record in read_report(project.path / "out")["records"]
    ]
    assert bounds == [
        {"cosine": 0.94, "sqnr_db": 18},
        {"cosine": 0.93, "sqnr_db": 18},
        {"cosine": 0.92, "sqnr_db": 18},
        {"cosine": 0.95},
        {"cosine": 0.81},
    ]


def test_the_suite_is_held_to_the_targets_of_ini(project):
    project.makepyprojecttoml(
        "[tool.pytest.ini_options]\narrowquant_targets = ['4: cosine=0.9999']"
    )
    result = project.runpytest(*ACCURACY)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*cosine 0.99*, expected >= 0.9999, margin -0.00*", "*seed 0"])


def test_original_needs_accuracy(project):
    save_file({"w": np.ones((4, 4), np.float32)}, project.path / "model.safetensors")
    result = project.runpytest("--arrowquant-original=model.safetensors")
    assert_usage_error(result, "ERROR: --arrowquant-original needs --arrowquant-accuracy")


def make_original(project: pytest.Pytester, kind: str) -> None:
    path = project.path / "model.safetensors"
    if kind == "a folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("These are not the weights.")
    elif kind == "empty":
        path.touch()
    elif kind != "missing":
        weight = np.ones((64, 64), np.float32 if kind == "truncated" else np.int32)
        save_file({"w": weight, "b": np.ones(64, np.float32)}, path)
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "model.safetensors does not exist; expected a .safetensors or .gguf file"),
        ("a folder", "model.safetensors is a folder without a .safetensors or .gguf file"),
        ("truncated", "the file is truncated or its header wrong"),
        ("text", "model.safetensors is truncated or no safetensors file: "),
        ("empty", "model.safetensors is truncated: it has no header"),
        (
            "only integers",
            "checkpoint model.safetensors has no floating tensor of two or more dimensions",
        ),
    ],
)
def test_an_original_that_is_no_good_is_a_usage_error(project, kind, said):
    make_original(project, kind)
    result = project.runpytest("--arrowquant-accuracy", "--arrowquant-original=model.safetensors")
    assert_usage_error(result, said)


def test_a_bad_value_is_a_usage_error_under_xdist_too(project):
    project.makepyfile("def test_it(): pass")
    project.makeini("[pytest]\narrowquant_bits = 3")
    result = project.runpytest_subprocess("-n2")
    assert_usage_error(result, "ERROR: arrowquant_bits: '3' names '3'")
