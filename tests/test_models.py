"""Synthetic models: their shapes, and that their weights have the statistics they claim."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest

from pytest_arrowquant import OptionError, synthetic_model
from pytest_arrowquant.models import FAMILIES
from pytest_arrowquant.models.draw import KINDS, Kind, draw
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
    ("family", "hidden", "depth", "parameters"),
    [
        ("mdlm", 768, 12, 139140096),
        ("sedd", 768, 12, 169454592),
        ("code", 768, 12, 100936704),
        ("dit", 1024, 24, 457466880),
        ("vae", 512, 4, 83587920),
        ("wavegrad", 512, 16, 67309568),
    ],
)
def test_full_models_have_all_layers(family, hidden, depth, parameters):
    full, small = synthetic_model(family, "full"), synthetic_model(family)
    inside = [layer.name.removeprefix("decoder.").split(".") for layer in full]
    blocks = {name[1] for name in inside if name[0] in ("blocks", "layers", "up")}
    assert len(blocks) == depth
    assert any(layer.shape[:2] == (hidden, hidden) for layer in full)
    assert sum(prod(layer.shape) for layer in full) == parameters
    assert len({layer.name for layer in full}) == len(full)
    assert {layer.name for layer in small} < {layer.name for layer in full}
    assert {layer.shape[-1] for layer in small} == {layer.shape[-1] for layer in full}


def test_the_autoencoder_has_the_published_number_of_parameters():
    """Stable Diffusion's has 83,653,863, with biases and the gains and biases of its norms."""
    total = 0
    for layer in synthetic_model("vae", "full"):
        name = layer.name.split(".")[-1]
        total += prod(layer.shape) + layer.shape[0]
        if name in ("conv1", "conv2", "conv_out", "q"):  # a norm before each, shared by q, k and v
            total += 2 * layer.shape[1]
    assert total == 83_653_863


def test_parameters_are_those_of_the_published_sizes():
    """DiT-L/2 has 458 million (Peebles and Xie 2023, table 4); biases are not drawn."""
    assert round(sum(prod(layer.shape) for layer in synthetic_model("dit", "full")) / 1e6) == 457


def test_modalities_differ_in_their_layers():
    ranks = {m: {len(layer.shape) for layer in synthetic_model(m)} for m in MODALITIES}
    assert ranks == {"text": {2}, "code": {2}, "image": {2, 4}, "audio": {3}}
    names = {m: {layer.name for layer in synthetic_model(m)} for m in MODALITIES}
    assert not names["text"] & names["code"]
    assert {model.modality for model in FAMILIES.values()} == set(MODALITIES)
    modalities = {name: family.modality for name, family in FAMILIES.items()}
    assert modalities == {
        "mdlm": "text",
        "sedd": "text",
        "code": "code",
        "dit": "image",
        "vae": "image",
        "wavegrad": "audio",
    }
    defaults = {modality: synthetic_model(modality).subject.family for modality in MODALITIES}
    assert defaults == {"text": "mdlm", "code": "code", "image": "dit", "audio": "wavegrad"}


def test_a_weight_depends_on_seed_family_and_name_alone():
    layer = next(iter(synthetic_model("audio", seed=3)))
    assert np.array_equal(layer.weight, layer.weight)
    same = replace(layer, kept=False, inputs=None)
    assert np.array_equal(layer.weight, same.weight)
    for other in (
        replace(layer, seed=4),
        replace(layer, family="dit"),
        replace(layer, name="other"),
    ):
        assert not np.array_equal(layer.weight, other.weight)


def test_weights_are_read_only():
    weight = next(iter(synthetic_model("audio"))).weight
    assert weight.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        weight[0] = 0


def test_unknown_names_are_refused():
    with pytest.raises(
        OptionError, match="unknown model family 'llama'; known are mdlm, sedd, code, dit, vae"
    ):
        synthetic_model("llama")
    with pytest.raises(OptionError, match="scale='big' is not 'small' or 'full'"):
        synthetic_model("text", "big")
