"""What the JSON files beside a checkpoint's tensors say."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

KEYS = ("quantization_config", "compression_config", "quantization")  # in config.json
FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where the file is not there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CheckpointError(f"checkpoint file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint file {path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint file {path} is no JSON object")
    return content


def quantization(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is said of the quantization: in config.json, else in a file of its own; or nothing."""
    for said in (config, config.get("text_config")):
        for key in KEYS:
            if isinstance(said, Mapping) and said.get(key) and isinstance(said[key], dict):
                return dict(said[key])
    found = next((said for name in FILES if (said := json_object(folder / name))), {})
    inner = found.get("quantization")  # hf_quant_config.json has the producer beside it
    return {**found, **inner} if isinstance(inner, dict) else found
