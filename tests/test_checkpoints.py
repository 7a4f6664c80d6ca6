"""Reading safetensors files, whole and damaged."""

import json
import random
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file

from pytest_arrowquant import CheckpointError, Mse, Rtn
from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.checkpoints import open_checkpoint
from pytest_arrowquant.checkpoints.safetensors_file import BITS
from pytest_arrowquant.checkpoints.stored_tensor import DTYPES

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
    "header beyond the file": (
        b"\xff" * 8 + WHOLE[8:],
        TRUNCATED + f"should take {2**64 - 1} bytes, there is room for {len(WHOLE) - 8}",
    ),
    "header one byte too long": (
        (2).to_bytes(8, "little") + b"{",
        TRUNCATED + "should take 2 bytes, there is room for 1",
    ),
    "text": (b"not a safetensors file at all", TRUNCATED),
    "header no JSON": (written(b"{'w': 1}"), TRUNCATED + "is no JSON"),
    "header no UTF-8": (written(b'{"\xff": 1}'), TRUNCATED + "is no JSON"),
    "header in UTF-16": (written('{"w": 1}'.encode("utf-16")), TRUNCATED + "is no JSON"),
    "header with a mark of byte order": (written(b"\xef\xbb\xbf{}"), TRUNCATED + "is no JSON"),
    "header of nested lists": (written(b"[" * 100_000), TRUNCATED + "is no JSON"),
    "more after the header": (written(b"{} {}"), TRUNCATED + "is no JSON: Extra data"),
    "half a surrogate pair": (written(rb'{"\ud800": 1}'), TRUNCATED + "is no JSON"),
    "a number that is none": (
        written({"w": {**entry(), "x": float("nan")}}),
        TRUNCATED + "is no JSON: NaN is no number",
    ),
    "a number of 5000 digits": (
        written(b'{"w": {"dtype": "F32", "shape": [1' + b"0" * 5000 + b"]}}"),
        TRUNCATED + "is no JSON",
    ),
    "header a list": (written([1]), "its header is no JSON object"),
    "header a number": (written(1), "its header is no JSON object"),
    "a field twice": (
        written(b'{"w": {"dtype": "F32", "dtype": "F32", "shape": [], "data_offsets": [0, 4]}}', 4),
        TRUNCATED + "is no JSON: 'dtype' comes twice",
    ),
    "metadata twice": (
        written(b'{"__metadata__": {}, "__metadata__": {}}', 0),
        TRUNCATED + "is no JSON: '__metadata__' comes twice",
    ),
    "metadata no texts": (
        written({"__metadata__": {"a": 1}, "w": entry()}),
        "its __metadata__ is no object of texts",
    ),
    "metadata nothing": (
        written({"__metadata__": {"a": None}, "w": entry()}),
        "its __metadata__ is no object of texts",
    ),
    "metadata a list": (
        written({"__metadata__": [], "w": entry()}),
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
    "a shape of fractions": (
        written({"w": entry(shape=(4.0,))}),
        "tensor 'w' has shape [4.0] and data_offsets [0, 16]; expected whole numbers from 0",
    ),
    "a shape of truths": (
        written({"w": entry(shape=(True, 4))}),
        "tensor 'w' has shape [True, 4] and data_offsets [0, 16]; expected whole numbers from 0",
    ),
    "a shape that is a number": (
        written({"w": {**entry(), "shape": 4}}),
        "tensor 'w' has shape 4 and data_offsets [0, 16]; expected whole numbers from 0",
    ),
    "a shape beyond all memory": (
        written({"w": entry(shape=(2**40, 2**40))}),
        "has shape [1099511627776, 1099511627776]; expected at most 64 dimensions and 2^63 - 1 b",
    ),
    "a huge number": (
        written({"w": entry(shape=(2**64, 0))}),
        "tensor 'w' has shape [18446744073709551616, 0]; expected at most 64 dimensions",
    ),
    "a huge offset": (
        written({"w": entry(offsets=(0, 10**100))}),
        "tensor 'w' lies at bytes 0 to 1000",
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
    "a dtype that is a number": (
        written({"w": entry(dtype=32)}),
        "tensor 'w' has dtype 32; known are F64",
    ),
    "half a byte": (
        written({"w": entry((3,), (0, 1), "F4")}, 1),
        "tensor 'w' takes 1 bytes; F4 (3,) takes 1 and a part of one",
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
    "overlapping exactly": (
        written({"v": entry(), "w": entry()}),
        "tensor 'w' at bytes 0 to 16 overlaps tensor 'v', which ends at 16",
    ),
    "a hole at the beginning": (
        written({"w": entry((3,), (4, 16))}),
        "tensor 'w' at bytes 4 to 16 leaves a hole after the header, which ends at 0",
    ),
    "bytes without a tensor": (written({}), "16 bytes after the header belong to no tensor"),
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


@pytest.mark.parametrize("case", DAMAGED)
def test_the_format_s_own_library_refuses_these_too(tmp_path, case):
    with pytest.raises(SafetensorError):
        safe_open(damaged(tmp_path, DAMAGED[case][0]), framework="numpy")


OURS_ALONE = {
    "a name twice": (
        written(b'{"w": %s, "w": %s}' % ((json.dumps(entry()).encode(),) * 2)),
        TRUNCATED + "is no JSON: 'w' comes twice",
    ),
    "more dimensions than an array has": (
        written({"w": entry((1,) * 64 + (4,))}),
        "has shape [1, 1, 1, 1, 1, 1, ...]; expected at most 64 dimensions and 2^63 - 1 bytes",
    ),
    "empty, and yet too large": (
        written({"w": entry((0, 2**62), (0, 0))}, 0),
        "has shape [0, 4611686018427387904]; expected at most 64 dimensions and 2^63 - 1 bytes",
    ),
}


@pytest.mark.parametrize("case", OURS_ALONE)
def test_what_the_library_takes_and_no_array_can_hold(tmp_path, case):
    """Or, of a name that comes twice, keeps the last and does not say so."""
    content, said = OURS_ALONE[case]
    assert deserialize(content)[0][0] == "w"
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(damaged(tmp_path, content))
    assert said in str(error.value)


def read(path: Path) -> dict[str, tuple]:
    """Type, shape and bytes of every tensor as we read them."""
    return {
        name: (tensor.stored_dtype, list(tensor.shape), tensor.raw.tobytes())
        for name, tensor in open_checkpoint(path).tensors.items()
    }


def read_by_the_library(content: bytes) -> dict[str, tuple]:
    return {n: (t["dtype"], t["shape"], bytes(t["data"])) for n, t in deserialize(content)}


@pytest.mark.parametrize("dtype", BITS)
def test_every_dtype_is_read_to_the_bytes_that_the_library_reads(tmp_path, dtype):
    """Some shapes, empty ones among them, one after the other and nowhere aligned."""
    shapes = [(), (0,), (8,), (3, 8), (2, 0, 4), (1, 2, 4)]
    header, at = {"odd": entry((3,), (0, 3), "U8")}, 3
    for i, shape in enumerate(shapes[BITS[dtype] < 8 :]):
        end = at + int(np.prod(shape)) * BITS[dtype] // 8
        header[f"t{i}"] = entry(shape, (at, end), dtype)
        at = end
    content = written(header, 0) + random.Random(0).randbytes(at)
    path = damaged(tmp_path, content)
    assert read(path) == read_by_the_library(content)
    for tensor in open_checkpoint(path).tensors.values():
        if tensor.stored_dtype in DTYPES:
            assert tensor.array.shape == tensor.shape
            assert tensor.array.tobytes() == tensor.raw.tobytes()
        else:
            with pytest.raises(CheckpointError, match=rf"tensor '{tensor.name}' has dtype {dtype}"):
                _ = tensor.array


def test_codes_of_less_than_a_byte_have_no_array():
    assert set(BITS) - set(DTYPES) == {"F4", "F6_E2M3", "F6_E3M2"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_real_files_are_read_as_the_library_reads_them(path):
    assert read(path) == read_by_the_library(path.read_bytes())


ALPHABET = b'"{}[]:,0123456789-. ewFIU\\\x00\xff'


@pytest.mark.parametrize("seed", range(8))
def test_headers_at_random_are_refused_where_the_library_refuses_them(tmp_path, seed):
    """A byte or three of a header changed, lost or added: the same verdict, the same bytes."""
    draw = random.Random(seed)
    header = {"v": entry((2, 4), (0, 32)), "w": entry((3,), (32, 35), "U8"), "__metadata__": {}}
    whole = json.dumps(header).encode()
    agreed = {True: 0, False: 0}
    for _ in range(250):
        text = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(text))
            text[at : at + draw.randint(0, 1)] = draw.choices(ALPHABET, k=draw.randint(0, 1))
        content = written(bytes(text), 35)
        try:
            expected = read_by_the_library(content)
        except SafetensorError:
            expected = None
        try:
            found = read(damaged(tmp_path, content))
        except CheckpointError:
            found = None
        assert found == expected, bytes(text)
        agreed[found is None] += 1
    assert min(agreed.values()) > 10
