"""Blocks of a flattened weight, value by value; and what transformers leaves unquantized."""

from pathlib import Path

import numpy as np
import pytest

from pytest_arrowquant import CheckpointError
from pytest_arrowquant.checkpoints import Checkpoint
from pytest_arrowquant.checkpoints.flat_blocks import FlatBlocks
from pytest_arrowquant.checkpoints.skipped_modules import skipped


@pytest.mark.parametrize("columns", [1, 33, 64, 96, 160])
@pytest.mark.parametrize("size", [1, 8, 32, 64, 160, 1000])
def test_every_weight_has_the_value_of_its_block(columns, size):
    rows, blocks = 7, FlatBlocks(columns, size)
    values = np.arange(-(-rows * columns // size), dtype=np.float32)
    by_hand = (np.arange(rows * columns) // size).reshape(rows, columns)
    for start, stop in ((0, rows), (0, 3), (3, rows), (2, 2)):
        found = blocks.of_rows(values, start, stop)
        assert np.array_equal(np.repeat(found, blocks.run, axis=1), by_hand[start:stop])


@pytest.mark.parametrize(
    ("columns", "size", "grain"),
    [(128, 64, 64), (64, 64, "channel"), (32, 64, None), (160, 64, None), (33, 64, None)],
)
def test_blocks_are_groups_where_they_keep_to_rows(columns, size, grain):
    assert FlatBlocks(columns, size).grain == grain


MODULES = (
    *("lm_head", "model.lm_head", "model.lm_head.proj", "model.layers.1.mlp"),
    *("model.layers.11.mlp", "model.layers.1.mlp.gate", "model.layers.1.mlp.gate_proj"),
    *("vision.blocks.0.fc1", "vision.blocks.0.xfc1"),
)
LAYER_1 = ["model.layers.1.mlp", "model.layers.1.mlp.gate", "model.layers.1.mlp.gate_proj"]
LEFT_OUT = {  # what should_convert_module of transformers 5.23 says
    "lm_head": ["lm_head", "model.lm_head"],
    "model.layers.1": LAYER_1,
    "model.layers.*": ["model.layers.11.mlp", *LAYER_1],
    "mlp.gate": ["model.layers.1.mlp.gate"],
    "fc1": ["vision.blocks.0.fc1", "vision.blocks.0.xfc1"],
    r"model\.layers\.\d\.mlp|vision": [*LAYER_1, "vision.blocks.0.fc1", "vision.blocks.0.xfc1"],
}


def saying(said) -> Checkpoint:
    return Checkpoint(Path("x"), {}, quantization=said)


@pytest.mark.parametrize("text", LEFT_OUT)
def test_modules_are_left_out_as_transformers_does(text):
    (exemption,) = skipped(saying({"left": [text]}), "absent", "left")
    assert exemption.text == text
    assert {name for name in MODULES if exemption.covers(name)} == set(LEFT_OUT[text])


def test_a_list_that_is_no_pattern():
    with pytest.raises(CheckpointError) as error:
        skipped(saying({"left": ["a(b"]}), "left")
    assert str(error.value).startswith(
        "checkpoint x: the config has 'a(b', which is no pattern of names: "
    )


@pytest.mark.parametrize("left", ["lm_head", 3, ["lm_head", None], {"lm_head": True}])
def test_what_is_no_list(left):
    with pytest.raises(CheckpointError) as error:
        skipped(saying({"left": left}), "left")
    assert str(error.value) == f"checkpoint x: left is {left!r}; expected a list of names"


def test_nothing_is_left_out_where_nothing_is_said():
    assert skipped(saying({}), "left") == skipped(saying({"left": None}), "left") == ()
