"""Reading safetensors files, whole and damaged."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from pytest_arrowquant import CheckpointError, Mse, Rtn
from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.checkpoints import SafetensorsFile

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
    file = SafetensorsFile.open(tmp_path / "x.safetensors")
    assert [tensor.name for tensor in file.quantizable] == ["a", "b", "c", "d"]
    for tensor in file.tensors:
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
    file = SafetensorsFile.open(tmp_path / "x.safetensors")
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
    for tensor in SafetensorsFile.open(path).quantizable:
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
HEADER = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 99]}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        WHOLE[:5],
        WHOLE[:200],
        WHOLE[:-1],
        b"\xff" * 8 + WHOLE[8:],
        b"not a safetensors file at all",
        len(HEADER).to_bytes(8, "little") + HEADER + bytes(16),
    ],
    ids=[
        "empty",
        "no header",
        "half a header",
        "last byte lost",
        "header length",
        "text",
        "offsets",
    ],
)
def test_a_damaged_file_is_one_error_that_names_it(tmp_path, content):
    path = damaged(tmp_path, content)
    with pytest.raises(CheckpointError) as error:
        SafetensorsFile.open(path)
    assert str(error.value).startswith(f"checkpoint {path} is truncated or no safetensors file: ")
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"no\.safetensors does not exist; expected a \.safe"):
        SafetensorsFile.open(tmp_path / "no.safetensors")
    with pytest.raises(CheckpointError, match=r"is a folder, not a file; expected a \.safetensors"):
        SafetensorsFile.open(tmp_path)
