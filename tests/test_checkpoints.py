"""Reading safetensors files, whole and damaged."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pytest_arrowquant import CheckpointError, Mse, Rtn
from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.checkpoints import open_checkpoint

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("*.safetensors"))


def test_tensors_keep_their_dtype_and_values(tmp_path):
    written = {
        "a": np.float32([[1, 2], [3, 4]]),
        "b": np.ones((2, 3, 4), np.float16),
        "c": np.full((2, 2), 0.1, ml_dtypes.bfloat16),
        "d": np.ones((2, 2), np.float64),
    }
    save_file(written, tmp_path / "x.safetensors")
    file = open_checkpoint(tmp_path / "x.safetensors")
    assert [tensor.name for tensor in file.quantizable] == ["a", "b", "c", "d"]
    for tensor in file.tensors.values():
        assert tensor.weight.dtype == written[tensor.name].dtype
        assert tensor.weight.tobytes() == written[tensor.name].tobytes()


def test_what_stays_in_full_precision_says_why(tmp_path):
    tensors = {
        "bias": np.ones(4, np.float32),
        "position_ids": np.ones((1, 4), np.int64),
        "empty": np.ones((0, 4), np.float32),
        "codes": np.ones((2, 2), ml_dtypes.float8_e4m3fn).view(np.uint8),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    file = open_checkpoint(tmp_path / "x.safetensors")
    assert file.quantizable == ()
    assert {tensor.name: tensor.reason_left for tensor in file.left} == {
        "bias": "1 dimension, fewer than 2",
        "position_ids": "dtype I64 is not a floating type of 16 bits or more",
        "empty": "it is empty",
        "codes": "dtype U8 is not a floating type of 16 bits or more",
    }


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_trained_weights_meet_the_targets(path, bits):
    for tensor in open_checkpoint(path).quantizable:
        errors = []
        for quantizer in (Rtn(), Mse(zero="none")):
            metrics = Accuracy([]).check_model(tensor, quantizer, bits=bits)
            assert metrics.original_bytes == tensor.weight.nbytes
            errors.append(metrics.sqnr_db)
        assert errors[1] >= errors[0] - 1e-9  # never worse than round-to-nearest
        Accuracy([]).check_model(tensor, Mse(), bits=bits)


def damaged(tmp_path, content: bytes) -> Path:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    return path


WHOLE = FILES[0].read_bytes()


def written(header: object, data: int = 16) -> bytes:
    """A file of this header, and so many bytes of data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def entry(shape=(4,), offsets=(0, 16), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


TRUNCATED = "is truncated or no safetensors file: its header "
DAMAGED = {
    "empty": (b"", "is truncated: it has no header"),
    "no header": (WHOLE[:5], "is truncated: it has no header"),
    "half a header": (WHOLE[:200], TRUNCATED + "should take "),
    "header beyond the file": (b"\xff" * 8 + WHOLE[8:], TRUNCATED + f"should take {2**64 - 1}"),
    "text": (b"not a safetensors file at all", TRUNCATED),
    "header no JSON": (written(b"{'w': 1}"), TRUNCATED + "is no JSON"),
    "header no UTF-8": (written(b'{"\xff": 1}'), TRUNCATED + "is no JSON"),
    "header a list": (written([1]), "its header is no JSON object"),
    "a name twice": (written(b'{"w": {}, "w": {}}'), TRUNCATED + "is no JSON: 'w' comes twice"),
    "metadata no texts": (
        written({"__metadata__": {"a": 1}, "w": entry()}),
        "its __metadata__ is no object of texts",
    ),
    "last byte lost": (WHOLE[:-1], ": the file is truncated or its header wrong"),
    "offsets beyond the file": (
        written({"w": entry(offsets=(0, 99))}),
        "tensor 'w' lies at bytes 0 to 99 of 16: the file is truncated or its header wrong",
    ),
    "offsets reversed": (
        written({"w": entry(offsets=(16, 0))}),
        "tensor 'w' lies at bytes 16 to 0 of 16: the file is truncated or its header wrong",
    ),
    "a negative offset": (
        written({"w": entry(offsets=(-16, 0))}),
        "tensor 'w' has shape [4] and data_offsets [-16, 0]; expected whole numbers from 0",
    ),
    "a negative shape": (
        written({"w": entry(shape=(-4,))}),
        "tensor 'w' has shape [-4] and data_offsets [0, 16]; expected whole numbers from 0",
    ),
    "a shape of texts": (
        written({"w": entry(shape=("4",))}),
        "tensor 'w' has shape ['4'] and data_offsets [0, 16]; expected whole numbers from 0",
    ),
    "offsets of three": (
        written({"w": entry(offsets=(0, 8, 16))}),
        "expected dtype, shape and two data_offsets",
    ),
    "no shape": (
        written({"w": {"dtype": "F32", "data_offsets": [0, 16]}}),
        "expected dtype, shape and two data_offsets",
    ),
    "a tensor that is a number": (written({"w": 5}), "tensor 'w' is described by 5"),
    "an unknown dtype": (
        written({"w": entry(dtype="F31")}),
        "tensor 'w' has dtype 'F31'; known are F64",
    ),
    "bytes that do not fit the shape": (
        written({"w": entry(shape=(5,))}),
        "tensor 'w' takes 16 bytes; F32 (5,) takes 20",
    ),
    "overlapping": (
        written({"v": entry(offsets=(0, 16)), "w": entry(shape=(2,), offsets=(8, 16))}),
        "tensor 'w' at bytes 8 to 16 overlaps tensor 'v', which ends at 16",
    ),
    "a hole": (
        written({"v": entry((1,), (0, 4)), "w": entry((2,), (8, 16))}),
        "tensor 'w' at bytes 8 to 16 leaves a hole after tensor 'v', which ends at 4",
    ),
    "bytes left over": (
        written({"v": entry((1,), (0, 4))}),
        "12 bytes after tensor 'v' belong to no tensor",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_one_error_that_names_it(tmp_path, case):
    content, said = DAMAGED[case]
    path = damaged(tmp_path, content)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(path)
    assert str(error.value).startswith(f"checkpoint {path}")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", sorted(DAMAGED))
def test_the_format_s_own_library_refuses_these_too(tmp_path, case):
    with pytest.raises(SafetensorError):
        safe_open(damaged(tmp_path, DAMAGED[case][0]), framework="numpy")
