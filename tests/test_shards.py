"""Checkpoints of several files: folders, indices, and what is wrong with them."""

import json
import re

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
        f"{INDEX} is out of date: 2 tensors are in another shard",
        f"{INDEX} is out of date: it does not name 1 tensors",
    )


def test_a_shard_that_is_missing(folder):
    (folder / TWO).unlink()
    assert refused(folder) == (
        f"checkpoint {folder / INDEX}: shard {TWO} does not exist; it should hold tensor 'c'"
    )
    (folder / INDEX).unlink()
    assert refused(folder) == f"checkpoint {folder}: shard {TWO} does not exist, as {ONE} does"


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
    "content", ["{", "[]", "{}", '{"weight_map": 5}', '{"weight_map": {"a": "../a.safetensors"}}']
)
def test_an_index_that_is_none(folder, content):
    (folder / INDEX).write_text(content)
    assert re.search(
        rf"{INDEX} (is not JSON|is no JSON object|has no weight_map of tensors to files)",
        refused(folder),
    )


def test_files_that_the_index_does_not_name_are_left_alone(folder):
    save_file({"a": filled(9)}, folder / "consolidated.safetensors")
    save_file({"lora": filled(9)}, folder / "adapter_model.safetensors")
    assert list(open_checkpoint(folder).tensors) == ["a", "b", "c"]


def test_one_file_of_the_usual_name_is_the_checkpoint(tmp_path):
    save_file({"a": filled(1)}, tmp_path / "model.safetensors")
    save_file({"a": filled(9)}, tmp_path / "consolidated.safetensors")
    assert (open_checkpoint(tmp_path).tensors["a"].array == 1).all()


def test_several_indices(folder):
    (folder / f"other.{INDEX}").write_text((folder / INDEX).read_text())
    assert f"has several indices, {INDEX}, other.{INDEX}; give the one meant" in refused(folder)


def test_nothing_there(tmp_path):
    assert "is a folder without a .safetensors file" in refused(tmp_path)
    assert refused(tmp_path / "no.safetensors").endswith(
        "does not exist; expected a .safetensors or .gguf file, a folder of shards or their index"
    )
    assert refused(tmp_path / INDEX).endswith("does not exist; expected an index of shards")


CONFIGS = {
    "config.json": {"quantization_config": {"quant_method": "x"}},
    "config.json, of the text": {"text_config": {"quantization_config": {"quant_method": "x"}}},
    "quantize_config.json": {"quant_method": "x"},
    "quant_config.json": {"quant_method": "x"},
    "hf_quant_config.json": {"producer": {"name": "p"}, "quantization": {"quant_method": "x"}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_config_files_say_of_the_quantization(folder, name):
    (folder / name.partition(",")[0]).write_text(json.dumps(CONFIGS[name]))
    for path in (folder, folder / INDEX, folder / ONE):
        assert open_checkpoint(path).quantization["quant_method"] == "x"


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
