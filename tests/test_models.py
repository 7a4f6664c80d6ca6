"""Synthetic models: their shapes, and that their weights have the statistics they claim."""

from math import prod

import numpy as np
import pytest

from pytest_arrowquant import OptionError, synthetic_model
from pytest_arrowquant.models import FAMILIES
from pytest_arrowquant.models.draw import KINDS, Kind, SyntheticLayer, draw
from pytest_arrowquant.vocabulary import MODALITIES


def weibull_shape(values):
    """The shape k of |w|'s middle 80 %: the slope of log(-log(1 - F)) against log |w|."""
    magnitudes = np.sort(np.abs(values.reshape(-1).astype(np.float64)))
    share = (np.arange(magnitudes.size) + 0.5) / magnitudes.size
    middle = (share > 0.1) & (share < 0.9)
    x, y = np.log(magnitudes[middle]), np.log(-np.log1p(-share[middle]))
    return np.polyfit(x, y, 1)[0]


def excess_kurtosis(values):
    centred = values.astype(np.float64) - values.mean()
    return (centred**4).mean() / (centred**2).mean() ** 2 - 3


# Published Weibull shapes of trained layers: 1.19-1.20 in MLP and output projections (a Gaussian
# has 1.205), 1.05-1.18 in merged qkv, 0.76-1.16 in separate q and k, about 1.1 in embeddings.
@pytest.mark.parametrize(
    ("kind", "shape", "kurtosis"),
    [
        ("mlp_in", (1.18, 1.20), (0.2, 0.6)),
        ("mlp_out", (1.18, 1.20), (0.2, 0.6)),
        ("attention_out", (1.18, 1.20), (0.2, 0.6)),
        ("attention_qkv", (1.05, 1.18), (2, 5)),
        ("attention_qk", (1.10, 1.17), (1.5, 4)),
        ("attention_v", (1.12, 1.18), (1, 2.5)),
        ("embedding", (1.07, 1.14), (3, 12)),
        ("dit", (1.14, 1.20), (2, 9)),
        ("modulation", (0.9, 1.05), (15, np.inf)),
        ("convolution", (1.05, 1.15), (2.5, 9)),
    ],
)
def test_tails_are_those_of_trained_layers(kind, shape, kurtosis):
    weight = draw((1024, 1024), KINDS[kind], np.random.default_rng(5))
    assert shape[0] <= weibull_shape(weight) <= shape[1]
    assert kurtosis[0] <= excess_kurtosis(weight) <= kurtosis[1]


def test_every_kind_has_its_statistics_held():
    marks = test_tails_are_those_of_trained_layers.pytestmark
    held = {case[0] for mark in marks for case in mark.args[1]}
    assert held == set(KINDS)


def test_row_and_column_scales_and_outlier_columns():
    kind = Kind(30, 0.3, 0.2, outlier_share=0.01, outlier_gain=8)
    weight = draw((2000, 1000), kind, np.random.default_rng(0)).astype(np.float64)
    rows, columns = np.sqrt((weight**2).mean(1)), np.sqrt((weight**2).mean(0))
    assert np.log(rows).std() == pytest.approx(0.3, rel=0.1)
    plain, outliers = np.sort(columns)[:-10], np.sort(columns)[-10:]
    assert np.log(plain).std() == pytest.approx(0.2, rel=0.1)
    assert np.exp(np.log(outliers).mean() - np.log(plain).mean()) == pytest.approx(8, rel=0.25)


def test_the_scale_is_once_to_twice_the_initialisation():
    for seed in range(20):
        weight = draw((256, 768), Kind(30, 0, 0), np.random.default_rng(seed))
        assert 0.69 < weight.std() * 768**0.5 < 1.42


@pytest.mark.parametrize(
    ("modality", "hidden", "depth", "parameters"),
    [
        ("text", 768, 12, 139140096),
        ("code", 768, 12, 100936704),
        ("image", 1024, 24, 457466880),
        ("audio", 512, 16, 67309568),
    ],
)
def test_full_models_have_all_layers(modality, hidden, depth, parameters):
    full, small = synthetic_model(modality, "full"), synthetic_model(modality)
    blocks = {name.split(".")[1] for name in (layer.name for layer in full) if ".0." in name or
              name.split(".")[0] in ("blocks", "layers")}  # fmt: skip
    assert len(blocks) == depth
    assert any(layer.shape[:2] == (hidden, hidden) for layer in full)
    assert sum(prod(layer.shape) for layer in full) == parameters
    assert {layer.name for layer in small} < {layer.name for layer in full}
    assert {layer.shape[-1] for layer in small} == {layer.shape[-1] for layer in full}


def test_modalities_differ_in_their_layers():
    ranks = {m: {len(layer.shape) for layer in synthetic_model(m)} for m in MODALITIES}
    assert ranks == {"text": {2}, "code": {2}, "image": {2, 4}, "audio": {3}}
    names = {m: {layer.name for layer in synthetic_model(m)} for m in MODALITIES}
    assert not names["text"] & names["code"]
    assert {model.modality for model in FAMILIES.values()} == set(MODALITIES)


def test_a_weight_depends_on_seed_family_and_name_alone():
    layer = next(iter(synthetic_model("audio", seed=3)))
    assert np.array_equal(layer.weight, layer.weight)
    same = SyntheticLayer(layer.name, layer.shape, layer.kind, "wavegrad", 3)
    assert np.array_equal(layer.weight, same.weight)
    for other in (
        SyntheticLayer(layer.name, layer.shape, layer.kind, "wavegrad", 4),
        SyntheticLayer(layer.name, layer.shape, layer.kind, "dit", 3),
        SyntheticLayer("other", layer.shape, layer.kind, "wavegrad", 3),
    ):
        assert not np.array_equal(layer.weight, other.weight)


def test_weights_are_read_only():
    weight = next(iter(synthetic_model("audio"))).weight
    assert weight.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        weight[0] = 0


def test_unknown_names_are_refused():
    with pytest.raises(
        OptionError, match="unknown model family 'llama'; known are mdlm, code, dit"
    ):
        synthetic_model("llama")
    with pytest.raises(OptionError, match="scale='big' is not 'small' or 'full'"):
        synthetic_model("text", "big")
