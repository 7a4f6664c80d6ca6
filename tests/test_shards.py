"""Checkpoints of several files: folders, indices, and what is wrong with them."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pytest_arrowquant import CheckpointError, plan
from pytest_arrowquant.checkpoints import open_checkpoint

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def filled(value: float):
    return np.full((4, 8), value, np.float32)


@pytest.fixture
def folder(tmp_path):
    """Two shards and their index."""
    save_file({"a": filled(1), "b": filled(2)}, tmp_path / ONE)
    save_file({"c": filled(3)}, tmp_path / TWO)
    write_index(tmp_path, {"a": ONE, "b": ONE, "c": TWO})
    return tmp_path


def write_index(folder, weight_map) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def refused(path) -> str:
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(path)
    return str(error.value)


@pytest.mark.parametrize("of", ["folder", "index", "folder without an index"])
def test_all_shards_are_read(folder, of):
    if of == "folder without an index":
        (folder / INDEX).unlink()
    checkpoint = open_checkpoint(folder / INDEX if of == "index" else folder)
    assert list(checkpoint.tensors) == ["a", "b", "c"]
    assert [tensor.source for tensor in checkpoint.tensors.values()] == [ONE, ONE, TWO]
    for value, tensor in enumerate(checkpoint.tensors.values(), 1):
        assert (tensor.array == value).all()
    assert checkpoint.notes == ()


def test_headers_win_over_an_index_that_is_out_of_date(folder):
    write_index(folder, {"a": TWO, "c": ONE})
    checkpoint = open_checkpoint(folder)
    assert list(checkpoint.tensors) == ["a", "b", "c"]
    assert checkpoint.tensors["a"].source == ONE
    assert checkpoint.notes == (
        f"{INDEX} is out of date: 2 of the 2 tensors that it names are in another shard",
        f"{INDEX} is out of date: it names 2 of 3 tensors",
    )


def test_a_shard_of_the_series_that_the_index_does_not_name_is_read(folder):
    write_index(folder, {"a": ONE, "b": ONE})
    checkpoint = open_checkpoint(folder)
    assert list(checkpoint.tensors) == ["a", "b", "c"]
    assert checkpoint.notes == (f"{INDEX} is out of date: it names 2 of 3 tensors",)


def test_a_shard_that_is_missing(folder):
    (folder / ONE).rename(folder / "moved")
    assert f"shard {ONE} does not exist; it should hold tensor 'a'" in refused(folder)
    (folder / "moved").rename(folder / ONE)
    (folder / TWO).unlink()
    assert refused(folder) == (
        f"checkpoint {folder / INDEX}: shard {TWO} does not exist; it should hold tensor 'c'"
    )
    (folder / INDEX).unlink()
    assert refused(folder) == f"checkpoint {folder}: shard {TWO} does not exist, as {ONE} does"


def test_a_shard_that_is_a_link_to_nothing(folder):
    """A cache from which it was deleted."""
    (folder / TWO).unlink()
    (folder / TWO).symlink_to(folder / "blob")
    assert f"shard {TWO} does not exist; it should hold tensor 'c'" in refused(folder)
    (folder / INDEX).unlink()
    assert f"checkpoint {folder / TWO} does not exist; expected" in refused(folder)


@pytest.mark.parametrize(("first", "missing"), [(0, "x-00001-of-00003"), (1, "x-00002-of-00003")])
def test_a_series_counts_from_one_or_from_zero(tmp_path, first, missing):
    names = [f"x-{i:05d}-of-00003.safetensors" for i in range(first, first + 3)]
    for name in names:
        save_file({name[:7]: filled(1)}, tmp_path / name)
    assert len(open_checkpoint(tmp_path).tensors) == 3
    (tmp_path / names[1]).unlink()
    said = f"checkpoint {tmp_path}: shard {missing}.safetensors does not exist, as {names[0]} does"
    assert refused(tmp_path) == said


def test_a_tensor_that_no_shard_has(folder):
    write_index(folder, {"a": ONE, "b": ONE, "c": TWO, "d": TWO})
    assert refused(folder) == (
        f"checkpoint {folder / INDEX} names tensor 'd' in {TWO}, which no shard has (1 such)"
    )


def test_a_tensor_that_two_shards_have(folder):
    save_file({"a": filled(1), "c": filled(3)}, folder / TWO)
    assert refused(folder) == f"checkpoint {folder}: tensor 'a' is in both {ONE} and {TWO}"


def test_a_truncated_shard_is_named(folder):
    (folder / TWO).write_bytes((folder / TWO).read_bytes()[:-1])
    said = refused(folder)
    assert said.startswith(f"checkpoint {folder / TWO}: tensor 'c' lies at bytes 0 to 128 of 127")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON: "),
        (b'{"\xff": 1}', "is not JSON: "),
        (b"[" * 100_000, "is not JSON: "),
        (b'{"a": 1' + b"0" * 5000 + b"}", "is not JSON: "),
        (b"[]", "is no JSON object"),
        (b"{}", "has no weight_map of tensors to files in its own folder"),
        (b'{"weight_map": {}}', "has no weight_map of tensors"),
        (b'{"weight_map": 5}', "has no weight_map of tensors"),
        (b'{"weight_map": {"a": 5}}', "has no weight_map of tensors"),
        (b'{"weight_map": {"a": ""}}', "has no weight_map of tensors"),
        (b'{"weight_map": {"a": "../a.safetensors"}}', "has no weight_map of tensors"),
    ],
)
def test_an_index_that_is_none(folder, content, said):
    (folder / INDEX).write_bytes(content)
    assert re.match(rf"checkpoint (file )?{folder / INDEX} {said}", refused(folder))


def test_files_that_the_index_does_not_name_are_left_aside(folder):
    for name in ("consolidated", "adapter_model", "model"):
        save_file({"a": filled(9)}, folder / f"{name}.safetensors")
    checkpoint = open_checkpoint(folder)
    assert list(checkpoint.tensors) == ["a", "b", "c"]
    assert (checkpoint.tensors["a"].array == 1).all()
    (note,) = checkpoint.notes
    assert note == (
        "left aside: adapter_model.safetensors, consolidated.safetensors, model.safetensors, "
        f"which {INDEX} does not name"
    )


def test_one_file_of_the_usual_name_is_the_checkpoint(tmp_path):
    save_file({"a": filled(1)}, tmp_path / "model.safetensors")
    save_file({"a": filled(9)}, tmp_path / "original.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.tensors["a"].array == 1).all()
    assert checkpoint.notes == ("left aside: original.safetensors",)


@pytest.mark.parametrize("beside", ["adapter_model.safetensors", "consolidated.safetensors"])
def test_adapters_and_duplicates_are_left_aside_without_an_index_too(folder, beside):
    (folder / INDEX).unlink()
    save_file({"a": filled(9)}, folder / beside)
    checkpoint = open_checkpoint(folder)
    assert [tensor.source for tensor in checkpoint.tensors.values()] == [ONE, ONE, TWO]
    assert checkpoint.notes == (f"left aside: {beside}",)
    (folder / ONE).unlink()
    (folder / TWO).unlink()
    assert (open_checkpoint(folder).tensors["a"].array == 9).all()  # where it is all there is


def test_several_indices(folder):
    other = f"consolidated{INDEX.removeprefix('model')}"
    (folder / other).write_text('{"weight_map": {"z": "consolidated.safetensors"}}')
    assert list(open_checkpoint(folder).tensors) == ["a", "b", "c"]
    (folder / INDEX).rename(folder / f"x.{INDEX}")
    assert refused(folder) == (
        f"checkpoint {folder} has several indices, {other}, x.{INDEX}; give the one meant"
    )


ACCEPTED = "expected a .safetensors or .gguf file, a folder of shards or their index"


@pytest.mark.parametrize(
    "name", ["no.safetensors", "no.gguf", INDEX, f"no/{INDEX}", "no", "no/no.safetensors"]
)
def test_what_does_not_exist(tmp_path, name):
    path = tmp_path / name
    accepted = "expected a .gguf file" if name == "no.gguf" else ACCEPTED
    assert refused(path) == f"checkpoint {path} does not exist; {accepted}"


def test_a_folder_of_nothing(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert refused(tmp_path) == (
        f"checkpoint {tmp_path} is a folder without a .safetensors or .gguf file; expected one, "
        "several shards, or an index of them"
    )


GGUF = Path(__file__).parent / "golden" / "gguf"


@pytest.mark.parametrize("case", ["q4-q5-q8", "split"])
def test_a_folder_of_one_gguf(tmp_path, case):
    files = sorted((GGUF / case).glob("*.gguf"))
    assert (len(files) > 1) == (case == "split")
    for file in files:
        shutil.copy(file, tmp_path)
    assert list(open_checkpoint(tmp_path).tensors) == list(open_checkpoint(files[0]).tensors)
    shutil.copy(files[0], tmp_path / "zero.gguf")
    names = ", ".join([*(file.name for file in files), "zero.gguf"])
    assert refused(tmp_path) == (
        f"checkpoint {tmp_path} has several .gguf files, {names}; give the one meant"
    )


@pytest.fixture
def locked(folder):
    """The folder, which may not be entered; root may everywhere, so it becomes somebody else."""
    root = os.geteuid() == 0
    folder.chmod(0)
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o700)


@pytest.mark.parametrize("name", [".", ONE, INDEX])
def test_what_may_not_be_read(locked, name):
    assert refused(locked / name) == (
        f"checkpoint {locked / name} cannot be read: Permission denied"
    )


def test_a_config_that_is_a_folder(folder):
    (folder / "config.json").mkdir()
    said = f"checkpoint file {folder / 'config.json'} cannot be read: Is a directory"
    assert refused(folder) == said


def test_a_path_that_no_system_can_read(tmp_path):
    path = tmp_path / ("x" * 300 + ".safetensors")
    assert refused(path) == f"checkpoint {path} cannot be read: File name too long"
    path = tmp_path / "loop.safetensors"
    path.symlink_to(path)
    assert refused(path).startswith(f"checkpoint {path} cannot be read: Too many levels of symb")


CONFIGS = {
    "config.json": {"quantization_config": {"quant_method": "x"}},
    "config.json, of the text": {"text_config": {"quantization_config": {"quant_method": "x"}}},
    "quantize_config.json": {"quant_method": "x"},
    "quant_config.json": {"quant_method": "x"},
    "config.json, named as of old": {"compression_config": {"quant_method": "x"}},
    "config.json, of MLX": {"quantization": {"quant_method": "x"}, "text_config": None},
    "hf_quant_config.json": {"producer": {"name": "p"}, "quantization": {"quant_method": "x"}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_config_files_say_of_the_quantization(folder, name):
    (folder / name.partition(",")[0]).write_text(json.dumps(CONFIGS[name]))
    for path in (folder, folder / INDEX, folder / ONE):
        assert open_checkpoint(path).quantization["quant_method"] == "x"


def test_a_file_of_its_own_is_heard_where_the_config_says_nothing(folder):
    (folder / "config.json").write_text('{"quantization_config": {}, "x": 1}')
    (folder / "quant_config.json").write_text('{"bits": 4}')
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.config["x"], checkpoint.quantization) == (1, {"bits": 4})


def test_a_config_that_is_no_json(folder):
    (folder / "config.json").write_text("{")
    assert refused(folder).startswith(f"checkpoint file {folder / 'config.json'} is not JSON: ")


def test_a_plan_takes_a_folder(folder):
    assert [choice.name for choice in plan(folder).choices] == ["a", "b", "c"]


def test_one_mapping_a_file_whatever_the_tensors(tmp_path):
    """A descriptor a tensor would end at the system's limit."""
    save_file({f"t{i}": np.float32([i]) for i in range(5000)}, tmp_path / "x.safetensors")
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    bases = {id(tensor.raw.base) for tensor in checkpoint.tensors.values()}
    assert len(bases) == 1
    assert [int(t.array[0]) for t in checkpoint.tensors.values()][:3] == [0, 1, 10]
