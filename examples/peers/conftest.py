"""The peers that are installed, under test."""

from importlib import import_module
from importlib.metadata import distributions

PEERS = {
    "gguf": "peer_gguf",
    "torchao": "peer_torchao",
    "hqq": "peer_hqq",
    "bitsandbytes": "peer_bitsandbytes",
    "optimum-quanto": "peer_quanto",
}


def pytest_arrowquant_quantizers(config):
    """The quantizers of each peer that is installed."""
    installed = {distribution.name for distribution in distributions()}
    modules = [module for peer, module in PEERS.items() if peer in installed]
    return [quantizer for module in modules for quantizer in import_module(module).QUANTIZERS]
