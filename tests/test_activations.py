"""Calibration inputs: what every layer's draws must be, and the statistics each family claims.

The bounds are figures from the literature or closed forms, not what the generator gave: see
docs/models.md.
"""

import math
import tracemalloc
from dataclasses import replace
from functools import cache
from math import prod

import numpy as np
import pytest

from pytest_arrowquant import synthetic_model
from pytest_arrowquant.models import FAMILIES, layer
from pytest_arrowquant.models.features import Features
from pytest_arrowquant.models.fields import gelu, leaky_relu, linear, rms, silu
from pytest_arrowquant.models.inputs import calibration_tokens

TABLES = {
    "mdlm": {"vocab_embed.embedding"},
    "sedd": {"vocab_embed.embedding"},
    "code": set(),  # tied to the output, so it is multiplied
    "dit": {"y_embedder.embedding_table"},
    "vae": set(),
    "wavegrad": set(),
}


@cache
def layers(family, scale="small", seed=0):
    return {layer.name: layer for layer in synthetic_model(family, scale, seed)}


@cache
def steps(family, name, scale="small", seed=0):
    """A layer's calibration, an array of float64 tokens for each timestep."""
    tokens = layers(family, scale, seed)[name].calibration.by_step()
    return [block.astype(np.float64) for block in tokens]


def tokens_of(law, shape=(1, 512), time=0.0, count=4096, seed=0):
    """Tokens drawn straight from a law: float64 (count, channels, window)."""
    statistics = np.random.default_rng(seed)
    sample = law.sampler(shape, statistics.permutation(shape[1]), statistics)
    tokens = sample(time, count, np.random.default_rng(seed + 1000)).astype(np.float64)
    return tokens.reshape(count, shape[1], prod(shape[2:]))


def root_mean_square(values, axis=None):
    return np.sqrt((values**2).mean(axis=axis))


def excess_kurtosis(values):
    centred = values - values.mean(axis=0)
    return (centred**4).mean(axis=0) / (centred**2).mean(axis=0) ** 2 - 3


# What every layer's inputs are


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_fed_but_for_tables(family):
    for scale in ("small", "full"):
        tables = {name for name, layer in layers(family, scale).items() if layer.inputs is None}
        assert tables == TABLES[family]
    for name in TABLES[family]:
        assert layers(family)[name].calibration is None
        assert layers(family)[name].held_out is None


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_fit_their_weights_and_held_out_ones_are_others(family):
    for name in layers(family).keys() - TABLES[family]:
        calibration, held_out = layers(family)[name].calibration, layers(family)[name].held_out
        columns = prod(layers(family)[name].shape[1:])
        assert calibration.inputs.shape[1] == held_out.inputs.shape[1] == columns
        assert len(calibration.inputs) >= max(2 * columns, 1024)
        assert 512 <= len(held_out.inputs) < 1024
        for drawn in (calibration, held_out):
            holds_its_shape(drawn, 1 if family == "vae" else 20)
        same_channels_other_tokens(calibration, held_out, repeated=family == "code")


def holds_its_shape(drawn, steps):
    assert drawn.steps == steps
    assert drawn.inputs.dtype == np.float32
    assert drawn.timesteps.dtype == np.int64
    assert np.all(np.diff(drawn.timesteps) >= 0)
    assert len(set(np.diff(drawn.starts))) == 1
    assert np.diff(drawn.starts)[0] >= 16
    assert np.isfinite(drawn.inputs).all()
    assert drawn.energies.min() > 0
    for array in (drawn.inputs, drawn.timesteps):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def same_channels_other_tokens(calibration, held_out, repeated):
    ratio = np.sqrt(held_out.energies / calibration.energies)
    assert np.median(np.abs(np.log(ratio))) < 0.1
    spread = np.log(calibration.energies)
    if spread.std() > 0.3:
        assert np.corrcoef(spread, np.log(held_out.energies))[0, 1] > 0.9
    if not repeated:  # repeated tokens are the same in both
        calibrated = {row.tobytes() for row in calibration.inputs}
        assert not calibrated & {row.tobytes() for row in held_out.inputs}


def test_enough_tokens_are_distinct_where_some_repeat():
    inputs = layers("code")["layers.0.mlp.down_proj"].calibration.inputs
    assert len(np.unique(inputs, axis=0)) >= 2 * inputs.shape[1]


def test_inputs_depend_on_seed_family_name_and_purpose_alone():
    conv = layers("wavegrad")["mel_conv"]
    alone = replace(conv, kept=False)
    for _ in range(2):
        assert np.array_equal(alone.held_out.inputs, conv.held_out.inputs)
        assert np.array_equal(alone.calibration.inputs, conv.calibration.inputs)
    drawn = {
        drawn.inputs[:512].tobytes()
        for other in (
            conv,
            replace(conv, seed=1),
            replace(conv, family="other"),
            replace(conv, name="other"),
        )
        for drawn in (other.calibration, other.held_out)
    }
    assert len(drawn) == 8


def test_full_models_share_the_inputs_of_small_ones():
    small, full = (layers("wavegrad", scale)["blocks.1.residual"] for scale in ("small", "full"))
    assert np.array_equal(small.calibration.inputs, full.calibration.inputs)


def test_few_inputs_are_kept():
    first = next(iter(synthetic_model("wavegrad", seed=5)))
    assert first.calibration is first.calibration
    assert first.held_out is first.held_out
    full = next(iter(synthetic_model("wavegrad", "full", seed=5)))
    assert full.calibration is not full.calibration
    for kept in (layer._kept_calibration, layer._kept_held_out):
        assert kept.cache_info().maxsize == 3
    for family in FAMILIES:
        weights = [4 * prod(one.shape) for one in layers(family).values()]
        assert len(weights) <= layer._kept.cache_info().maxsize
        assert sum(weights) < 100e6
        columns = [(one.inputs, prod(one.shape[1:])) for one in layers(family).values()]
        inputs = [
            4 * width * law.steps * calibration_tokens(law, width) for law, width in columns if law
        ]
        assert sum(sorted(inputs)[-3:]) < 160e6


@pytest.mark.parametrize(
    ("family", "name", "columns"),
    [("dit", "blocks.0.mlp.fc2", 4096), ("vae", "decoder.mid.block_1.conv1", 4608)],
)
def test_the_largest_layers_take_little_more_than_their_inputs(family, name, columns):
    assert max(prod(one.shape[1:]) for one in layers(family, "full").values()) == columns
    tracemalloc.start()
    try:
        drawn = layers(family, "full")[name].calibration
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert drawn.inputs.nbytes == 4 * len(drawn.inputs) * columns < 180e6
    assert peak < 1.35 * drawn.inputs.nbytes


# The covariance


@pytest.mark.parametrize("decay", [0.5, 1.0, 1.2])
@pytest.mark.parametrize("channels", [128, 129])
def test_eigenvalues_fall_by_the_power_law(decay, channels):
    x = tokens_of(Features(decay=decay, spread=0), (1, channels), count=20000)[:, :, 0]
    eigenvalues = np.linalg.eigvalsh(x.T @ x / len(x))[::-1]
    expected = np.arange(1, channels + 1) ** -decay
    expected *= channels / expected.sum()
    assert eigenvalues == pytest.approx(expected, rel=0.25)
    head = slice(0, channels // 2)
    slope = np.polyfit(np.log(np.arange(1, channels + 1)[head]), np.log(eigenvalues[head]), 1)[0]
    assert slope == pytest.approx(-decay, abs=0.07)


@pytest.mark.parametrize("channels", [1, 2, 3, 36])
def test_few_channels_have_unit_variance_too(channels):
    x = tokens_of(Features(spread=0), (1, channels), count=20000)
    assert (x**2).mean() == pytest.approx(1, abs=0.04)


# tr(D) / tr(H) by GPTQ's factor, d = 512 and n = 4096, 1 % damping: the loss ratio of GPTQ over
# round-to-nearest computed elsewhere for Haar-random eigenvectors.
@pytest.mark.parametrize(
    ("law", "expected"),
    [
        (Features(decay=0), 0.94),
        (Features(decay=0.5), 0.81),
        (Features(decay=1), 0.40),
        (Features(decay=1, outlier_share=0.01, outlier_gain=20), 0.43),
    ],
)
def test_gptq_gains_what_it_does_on_any_such_covariance(law, expected):
    ratios = []
    for seed in range(4):
        x = tokens_of(law, seed=seed)[:, :, 0]
        hessian = x.T @ x / len(x)
        hessian[np.diag_indices(512)] += 0.01 * np.diag(hessian).mean()
        upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
        ratios.append((1 / np.diag(upper) ** 2).sum() / np.trace(hessian))
    assert np.mean(ratios) == pytest.approx(expected, abs=0.025)


def test_neighbouring_samples_of_audio_correlate():
    law = layers("wavegrad")["film.1.input_conv"].inputs
    x = tokens_of(law, (1, 512, 3), count=1000)
    x /= root_mean_square(x, axis=(0, 2))[:, None]
    for apart, expected in ((1, 0.9), (2, 0.81)):
        correlation = (x[:, :, apart:] * x[:, :, : 3 - apart]).mean()
        assert correlation == pytest.approx(expected, abs=0.02)


def test_columns_are_channels_and_within_one_its_window():
    """In the flattened order of a convolution's weight, neighbours in a window correlate."""
    calibration = layers("wavegrad")["film.1.input_conv"].calibration
    x = calibration.inputs[calibration.starts[10] :].astype(np.float64)
    x /= root_mean_square(x, axis=0)
    neighbours = (x[:, :-1] * x[:, 1:]).mean(axis=0)
    within, across = neighbours[np.arange(1535) % 3 != 2], neighbours[2::3]
    assert np.median(within) == pytest.approx(0.9, abs=0.03)
    assert abs(np.median(across)) < 0.1


def test_windows_of_pictures_correlate_as_their_spectrum_says():
    """Against whole 64 x 64 pictures of a 1 / f^2 spectrum, and pairs of their pixels."""
    generator = np.random.default_rng(3)
    frequency = np.fft.fftfreq(64)
    distance = np.hypot(frequency[:, None], frequency)
    distance[0, 0] = np.inf
    white = np.fft.fft2(generator.standard_normal((400, 64, 64)))
    pictures = np.fft.ifft2(white / distance).real
    energy = (pictures**2).mean()
    law = layers("vae", "full")["decoder.up.1.upsample.conv"].inputs
    x = tokens_of(law, (1, 256, 3, 3), count=2000)
    x = (x / root_mean_square(x, axis=(0, 2))[:, None]).reshape(2000, 256, 3, 3)
    for down, right in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 2)):
        expected = (pictures * np.roll(pictures, (-down, -right), (1, 2))).mean() / energy
        pairs = x[:, :, : 3 - down, : 3 - right] * x[:, :, down:, right:]
        assert pairs.mean() == pytest.approx(expected, abs=0.03)


# The timesteps


@pytest.mark.parametrize(
    ("family", "name", "factor"),
    [
        ("mdlm", "blocks.0.attn_qkv", (1.5, 2.5)),
        ("mdlm", "blocks.0.mlp.2", (1.5, 2.5)),
        ("sedd", "blocks.0.mlp.0", (1.5, 2.5)),
        ("code", "layers.0.mlp.down_proj", (1.7, 2.3)),
        ("dit", "x_embedder.proj", (1.0, 1.15)),
        ("dit", "blocks.0.attn.qkv", (1.0, 1.15)),
        ("dit", "blocks.12.mlp.fc1", (1.6, 2.0)),
        ("dit", "blocks.12.mlp.fc2", (1.6, 2.0)),
        ("dit", "blocks.23.attn.proj", (2.0, 4.0)),
        ("dit", "final_layer.linear", (2.0, 4.0)),
        ("wavegrad", "first_conv", (12.5, 15.5)),
        ("wavegrad", "mel_conv", (1.0, 1.15)),
        ("wavegrad", "blocks.0.residual", (7.0, 12.5)),
        ("wavegrad", "blocks.1.conv.0", (4.5, 7.0)),
        ("wavegrad", "blocks.3.conv.1", (2.0, 3.0)),
        ("wavegrad", "blocks.15.conv.1", (2.0, 3.0)),
    ],
)
def test_the_range_over_the_timesteps(family, name, factor):
    ranges = np.array([root_mean_square(x) for x in steps(family, name, "full")])
    assert factor[0] <= ranges.max() / ranges.min() <= factor[1]
    if factor[0] > 1:  # log-linear, or that of the waveform, but always with the noise
        assert np.corrcoef(ranges, np.arange(20))[0, 1] > 0.9


def test_the_range_of_features_is_log_uniform():
    law = layers("wavegrad")["blocks.1.residual"].inputs
    times = np.linspace(0, 1, 5)
    ranges = [root_mean_square(tokens_of(law, time=t, count=2000)) for t in times]
    expected = ranges[0] * (ranges[-1] / ranges[0]) ** times
    assert ranges == pytest.approx(expected, rel=0.03)


def test_the_waveform_is_that_of_the_noise_schedule():
    """rms^2 = a 0.07^2 + 1 - a; white where noise rules, correlated where speech does."""
    alphas = np.cumprod(1 - np.linspace(1e-6, 0.01, 1000))
    told = alphas[np.round(np.linspace(0, 999, 20)).astype(int)]
    blocks = [
        np.concatenate(parts)
        for parts in zip(*(steps("wavegrad", "first_conv", seed=s) for s in range(8)), strict=True)
    ]
    expected = np.sqrt(told * 0.07**2 + 1 - told)
    assert [root_mean_square(x) for x in blocks] == pytest.approx(expected, rel=0.1)
    for x, kept in zip(blocks, told, strict=True):
        correlation = (x[:, 1:] * x[:, :-1]).mean() / (x**2).mean()
        speech = kept * 0.07**2 / (kept * 0.07**2 + 1 - kept)
        assert correlation == pytest.approx(0.9 * speech, abs=0.1)


@pytest.mark.parametrize(
    ("family", "name", "masked"),
    [
        ("mdlm", "blocks.0.attn_out", lambda t: 0.999 * t),
        ("code", "layers.0.self_attn.o_proj", lambda t: 0.999 * t),
        ("sedd", "blocks.0.attn_out", lambda t: 1 - math.exp(-(1e-4 ** (1 - t)) * 20**t)),
    ],
)
def test_tokens_are_masked_as_the_noise_has_it(family, name, masked):
    """A masked token is near the vector that all of them share: the mean of the last timestep."""
    shares = np.zeros(20)
    for seed in range(6):
        blocks = steps(family, name, seed=seed)
        scales = root_mean_square(np.concatenate(blocks), axis=0)
        shared = (blocks[-1] / scales).mean(axis=0)
        for t, x in enumerate(blocks):
            tokens = x / scales
            cosine = tokens @ shared / np.linalg.norm(tokens, axis=1) / np.linalg.norm(shared)
            shares[t] += (cosine > 0.75).mean() / 6
    expected = np.array([masked(t) for t in np.linspace(0, 1, 20)])
    assert shares == pytest.approx(expected, abs=0.09)  # 460 tokens or more: 4 sigma
    assert abs((shares - expected).mean()) < 0.015


def test_masked_tokens_are_one_vector_and_some_noise():
    law = layers("mdlm")["blocks.0.attn_out"].inputs
    x = tokens_of(replace(law, noise=lambda _: 50.0), (1, 768), count=2000)[:, :, 0]
    own = x - x.mean(axis=0)
    assert root_mean_square(own) / root_mean_square(x) == pytest.approx(0.4, abs=0.02)


def test_text_families_differ_in_their_time_laws():
    mdlm, sedd = (layers(family)["blocks.0.attn_qkv"].inputs.noise for family in ("mdlm", "sedd"))
    middle = [1 - math.exp(-noise(0.5)) for noise in (mdlm, sedd)]
    assert middle == pytest.approx([0.4995, 0.0437], abs=1e-3)


# Channels and tokens


@pytest.mark.parametrize(
    ("family", "name", "count", "gain"),
    [
        ("mdlm", "blocks.0.attn_qkv", 3, 20),
        ("sedd", "output_layer.linear", 3, 20),
        ("code", "layers.0.mlp.gate_proj", 3, 15),
        ("dit", "blocks.12.attn.qkv", 15, 8),
        ("wavegrad", "blocks.1.residual", 5, 6),
    ],
)
def test_outlier_channels(family, name, count, gain):
    """The share and ratio that the literature gives; channels by their rms at one timestep."""
    gains, counts = [], []
    for seed in range(8):
        one = layers(family, seed=seed)[name]
        law = replace(one.inputs, noise=None, drift=0, modulation=0, shift=0)
        x = tokens_of(law, one.shape, count=512, seed=seed)
        ranges = np.sort(np.log(root_mean_square(x, axis=(0, 2))))
        gains.append(ranges[-count:].mean() - ranges[:-count].mean())
        counts.append((ranges > np.median(ranges) + math.log(gain) / 2).sum())
    assert np.exp(np.mean(gains)) == pytest.approx(gain, rel=0.25)
    assert np.mean(counts) == pytest.approx(count, abs=0.3 if gain >= 15 else 3)


@pytest.mark.parametrize("family", ["mdlm", "sedd", "code"])
def test_outliers_of_text_are_the_same_at_all_timesteps(family):
    name = "layers.0.mlp.up_proj" if family == "code" else "blocks.0.mlp.0"
    law = replace(layers(family)[name].inputs, noise=None)  # a masked token has but one vector's
    found = [
        sorted(np.argsort(root_mean_square(tokens_of(law, (1, 768), t, 1000), axis=(0, 2)))[-3:])
        for t in (0, 0.5, 1)
    ]
    assert found[0] == found[1] == found[2]


def test_outliers_of_images_are_not_those_of_the_weight():
    for block in range(0, 24, 6):
        one = layers("dit", "full")[f"blocks.{block}.mlp.fc1"]
        fed = np.argsort(one.calibration.energies)[-12:]
        weighed = np.argsort((one.weight.astype(np.float64) ** 2).sum(axis=0))[-5:]
        assert not set(fed) & set(weighed)


def test_channels_of_images_move_with_the_timestep():
    """By a factor of about 2 in the median channel and 4 in one of ten; in text by none."""

    def factors(family, name):
        ranges = np.array([root_mean_square(x, axis=0) for x in steps(family, name)])
        ranges /= root_mean_square(ranges, axis=1)[:, None]
        return ranges.max(axis=0) / ranges.min(axis=0)

    moving = factors("dit", "blocks.12.attn.proj")
    assert 1.6 < np.median(moving) < 2.4
    assert 3 < np.quantile(moving, 0.9) < 5.5
    law = layers("mdlm")["blocks.0.attn_out"].inputs
    early, late = (
        root_mean_square(tokens_of(replace(law, noise=None), time=t), axis=(0, 2)) for t in (0, 1)
    )
    assert late / early == pytest.approx(np.full(512, 2), rel=0.15)


def test_film_scales_channels_over_the_schedule():
    """1 + 0.5 sin: each channel swings by up to 3, most by nearly that; conv.1 has none of it."""
    laws = [layers("wavegrad")[f"blocks.1.conv.{i}"].inputs for i in (0, 1)]
    for law, (low, high) in zip(laws, ((2.5, 3.3), (1.0, 1.15)), strict=True):
        ranges = np.array(
            [
                root_mean_square(tokens_of(law, (1, 512, 1), t, 2000), axis=(0, 2))
                for t in np.linspace(0, 1, 9)
            ]
        )
        ranges /= root_mean_square(ranges, axis=1)[:, None]
        assert low < np.median(ranges.max(axis=0) / ranges.min(axis=0)) < high


def test_ranges_of_a_picture_spread_over_a_factor_of_18():
    x = layers("vae")["decoder.mid.attn_1.q"].calibration.inputs
    ranges = root_mean_square(x.astype(np.float64), axis=0)
    assert 15 < ranges.max() / ranges.min() < 22
    quantiles = np.log(np.quantile(ranges, [0.25, 0.75]))
    assert quantiles[1] - quantiles[0] == pytest.approx(math.log(18) / 2, rel=0.15)


@pytest.mark.parametrize("family", ["mdlm", "sedd"])
def test_massive_activations(family):
    """2 % of the tokens, always the same two channels, 100 rms and far above all others."""
    found, tokens = [], 0
    for x in steps(family, "blocks.0.mlp.2"):
        usual = np.median(root_mean_square(x, axis=1))
        rows, columns = np.nonzero(np.abs(x) > 50 * usual)
        found.append((rows, columns))
        tokens += len(set(rows))
        assert np.abs(x[rows, columns]) == pytest.approx(np.full(len(rows), 100 * usual), rel=0.15)
    assert len({int(column) for _, columns in found for column in columns}) == 2
    total = sum(len(x) for x in steps(family, "blocks.0.mlp.2"))
    assert tokens / total == pytest.approx(0.02, abs=0.007)
    assert max(np.abs(x).max() for x in steps(family, "blocks.0.mlp.0")) < 100  # nowhere else


def test_code_repeats_tokens():
    law = layers("code")["layers.0.self_attn.o_proj"].inputs
    x = tokens_of(law, (1, 768), count=4000)[:, :, 0]  # no token is masked at time 0
    _, counts = np.unique(x, axis=0, return_counts=True)
    assert (counts > 1).sum() == 16
    assert counts[counts > 1].sum() / 4000 == pytest.approx(0.3, abs=0.03)


# Activation functions: moments of f(N(mean, 1)), integrated on a fine grid.
@pytest.mark.parametrize(
    ("family", "name", "response", "mean"),
    [
        ("mdlm", "blocks.0.mlp.2", gelu, -0.5),
        ("sedd", "blocks.0.mlp.2", gelu, -0.5),
        ("dit", "blocks.12.mlp.fc2", gelu, -0.5),
        ("vae", "decoder.up.0.block.0.conv1", silu, 0),
        ("wavegrad", "blocks.1.conv.1", leaky_relu, 0),
        ("wavegrad", "blocks.1.residual", linear, 0),
    ],
)
def test_inputs_are_what_the_activation_function_leaves(family, name, response, mean):
    grid = np.linspace(-12, 12, 200001)
    density = np.exp(-(grid**2) / 2)
    density /= density.sum()
    values = response(grid + mean)
    first = (density * values).sum()
    second, fourth = ((density * (values - first) ** power).sum() for power in (2, 4))
    law = replace(layers(family)[name].inputs, massive_share=0, noise=None, drift=0, spread=0)
    x = tokens_of(law, (1, 256, 1, 1), count=20000)[:, :, 0]
    assert np.median(excess_kurtosis(x)) == pytest.approx(fourth / second**2 - 3, abs=0.6)
    assert (x < 0).mean() == pytest.approx((density * (values < 0)).sum(), abs=0.02)
    assert root_mean_square(x) == pytest.approx(1, abs=0.03)
    assert rms(response, mean) == pytest.approx(math.sqrt((density * values**2).sum()), rel=1e-4)


def test_published_shapes_of_activations():
    """P(x < 0) and excess kurtosis after GELU and SiLU of N(-0.5, 1): 0.69, 8.5 and 7.0."""
    normal = np.random.default_rng(0).standard_normal(4_000_000) - 0.5
    assert (normal < 0).mean() == pytest.approx(0.69, abs=0.005)
    assert excess_kurtosis(gelu(normal)) == pytest.approx(8.5, abs=0.2)
    assert excess_kurtosis(silu(normal)) == pytest.approx(7.0, abs=0.2)
    assert silu(np.linspace(-3, 0, 3001)).min() == pytest.approx(-0.278, abs=1e-3)
    assert gelu(np.linspace(-3, 0, 3001)).min() == pytest.approx(-0.170, abs=1e-3)


def test_a_gated_product_has_tails_of_its_own():
    """silu(g) * u, both normal: kurtosis 3 E[silu^4] / E[silu^2]^2 - 3, and no mean."""
    grid = np.linspace(-12, 12, 200001)
    density = np.exp(-(grid**2) / 2)
    density /= density.sum()
    second, fourth = ((density * silu(grid) ** power).sum() for power in (2, 4))
    law = replace(layers("code")["layers.0.mlp.down_proj"].inputs, noise=None, repeated=0, decay=0)
    x = tokens_of(replace(law, spread=0), (1, 256), count=20000)[:, :, 0]
    expected = 3 * fourth / second**2 - 3
    assert np.median(excess_kurtosis(x)) == pytest.approx(expected, rel=0.1)
    assert np.abs(x.mean(axis=0)).max() < 0.05


# The time


def test_time_embeddings_are_cosines_and_sines():
    for family, name, last in (
        ("dit", "t_embedder.mlp.0", 999),
        ("mdlm", "sigma_map.mlp.0", -math.log1p(-0.999)),
        ("sedd", "sigma_map.mlp.0", 20),
    ):
        x = np.concatenate(steps(family, name))
        cosines, sines = np.hsplit(x, 2)
        assert cosines**2 + sines**2 == pytest.approx(np.ones_like(cosines), abs=1e-5)
        slowest = np.arcsin(sines[:, -1]) * 10000 ** (127 / 128)
        assert slowest.min() >= 0
        assert slowest.max() <= last * 1.0001
        assert slowest.max() > 0.9 * last
        assert cosines[:, 0] == pytest.approx(np.cos(slowest), abs=2e-2)


@pytest.mark.parametrize(
    ("family", "name", "labelled"),
    [
        ("mdlm", "blocks.0.adaLN_modulation", False),
        ("sedd", "output_layer.adaLN_modulation", False),
        ("code", "time_embed.2", False),
        ("dit", "blocks.12.adaLN_modulation.1", True),
    ],
)
def test_modulation_is_a_smooth_function_of_time(family, name, labelled):
    """Few eigenvalues hold it, fewer where there is no label; damping makes it regular."""
    law = layers(family)[name].inputs
    x = np.concatenate([tokens_of(law, (1, 128), t, 100)[:, :, 0] for t in np.linspace(0, 1, 20)])
    eigenvalues = np.linalg.eigvalsh(x.T @ x)[::-1]
    share = eigenvalues[:10].sum() / eigenvalues.sum()
    assert (0.8 < share < 0.98) if labelled else share > 0.995
    hessian = layers(family)[name].calibration.hessian
    hessian = hessian + 0.01 * np.diag(hessian).mean() * np.eye(len(hessian))
    assert np.diag(np.linalg.cholesky(hessian)).min() > 0.05
    blocks = np.array([x.mean(axis=0) for x in steps(family, name)])
    near, far = (root_mean_square(blocks[i:] - blocks[:-i]) for i in (1, 10))
    assert near < 0.6 * far


# Layers that feed one another


@pytest.mark.parametrize(
    ("family", "pairs"),
    [
        ("mdlm", 0),
        ("sedd", 0),
        ("code", 12),
        ("dit", 0),
        ("vae", 2),
        ("wavegrad", 16),
    ],
)
def test_producers_give_the_channels_of_what_they_feed(family, pairs):
    fed = [one for one in layers(family, "full").values() if one.producer]
    assert len(fed) == pairs
    for one in fed:
        assert layers(family, "full")[one.producer].shape[0] == one.shape[1]
    for one in layers(family).values():
        assert one.producer is None or one.producer in layers(family)


def test_a_factor_passes_from_a_producer_exactly():
    """f(s x) = s f(x), to the bit for powers of two, through what stands between the pairs."""
    x, gate = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    assert np.array_equal(leaky_relu(4 * x), 4 * leaky_relu(x))
    assert np.array_equal(silu(gate) * (4 * x), 4 * (silu(gate) * x))
    assert not np.array_equal(gelu(4 * x), 4 * gelu(x))
