"""Made-up records of an audit: names as real models have them, numbers that are plausible."""

from math import log10
from random import Random
from typing import Any

Plain = dict[str, Any]

TARGETS = {2: 0.70, 4: 0.90, 8: 0.95}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
SQNR_DB = {2: 8.0, 4: 20.0, 8: 44.0}
WEIGHTS = 1 << 20


def cosine_of(sqnr_db: float) -> float:
    """The cosine of an error at right angles to the restored weights."""
    return max(0.0, 1 - 10 ** (-sqnr_db / 10)) ** 0.5


def target(metric: str, op: str, bound: float, value: float | None, name: str, where: str = ""):
    """A bound as a record has it."""
    margin = None if value is None else bound - value if op == "<=" else value - bound
    return {"metric": metric, "op": op, "bound": bound, "value": value, "margin": margin,
            "tensor": name, "where": where, "passed": margin is None or margin >= 0}  # fmt: skip


def audited(name: str, sqnr_db: float | None = None, bits: int = 4, energy: float = 1.0) -> Plain:
    """The record of a quantized tensor; without an SQNR, of a plain one that is equal."""
    plain = sqnr_db is None
    cosine = None if sqnr_db is None else cosine_of(sqnr_db)
    error = 0.0 if sqnr_db is None else energy * 10 ** (-sqnr_db / 10)
    stored = 2 * WEIGHTS if plain else WEIGHTS * bits // 8 + WEIGHTS // 32
    targets = [target("unequal", "<=", 0, 0, name)]
    if sqnr_db is not None:
        targets = [
            target("cosine", ">=", TARGETS[bits], cosine, name),
            target("complete", "<=", 0, 0, name),
            target("row_sqnr_db", ">", 0.0, sqnr_db - 3, name, "row 3"),
            target("levels", "<=", 2**bits, 2**bits, name, "row 0, group 0"),
            target("floor", ">=", -3.0, 0.5, name, "row 7"),
            target("finite_scales", "<=", 0, 0, name),
            target("code_range", "<=", 2**bits - 1, 2**bits - 1, name),
            target("saturated", "<=", 0.5, 0.02, name),
        ]
    nothing = {"bits": None, "group_size": None, "symmetric": None, "zero": None}
    scheme = {"bits": bits, "group_size": 128, "symmetric": False, "zero": "integer"}
    return {
        "nodeid": f"pytest_arrowquant/suite/test_audit.py::test_tensor[{name}]",
        "attempt": 0,
        "index": 0,
        "name": name,
        "subject": {"kind": "checkpoint", "modality": None, "family": None,
                    "source": "model.safetensors", "tensors": 1, "parameters": WEIGHTS,
                    "dtype": "bfloat16"},
        "quantizer": {"name": "plain", "options": {}} if plain else
                     {"name": "gptq", "options": {"bits": bits, "group_size": 128}},
        "scheme": nothing if plain else scheme,
        "stored_as": "plain" if plain else "quantized",
        "optimizations": [],
        "recipe": None,
        "activations": None,
        "asserted": True,
        "metrics": {"cosine": cosine, "row_cosine_min": cosine, "sqnr_db": sqnr_db,
                    "row_sqnr_db_min": None if sqnr_db is None else sqnr_db - 3,
                    "norm_ratio": None, "gain": None, "bias": None, "max_abs_error": None,
                    "output_cosine": None, "output_sqnr_db": None,
                    "bits_per_weight": 8 * stored / WEIGHTS,
                    "compression_ratio": 2 * WEIGHTS / stored, "original_bytes": 2 * WEIGHTS,
                    "stored_bytes": stored, "shannon_gap_db": None},
        "energies": None if plain else
                    {"reference": energy, "restored": energy - error, "error": error},
        "improvement": None,
        "layers": {"count": 1, "cosine_min": cosine, "cosine_max": cosine, "cosine_mean": cosine,
                   "cosine_std": None if plain else 0.0,
                   "worst": [] if plain else [{"name": name, "shape": [1024, 1024],
                                               "cosine": cosine, "sqnr_db": sqnr_db}]},
        "targets": targets,
        "passed": all(each["passed"] for each in targets),
        "explanation": None,
        "notes": [],
        "timing": None,
    }  # fmt: skip


def missing(name: str) -> Plain:
    """The record of a tensor that the quantized checkpoint lacks."""
    record = audited(name)
    why = "missing in the quantized checkpoint"
    return record | {
        "quantizer": {"name": None, "options": {}},
        "stored_as": "missing",
        "metrics": dict.fromkeys(record["metrics"]),
        "layers": {"count": 1, "cosine_min": None, "cosine_max": None, "cosine_mean": None,
                   "cosine_std": None, "worst": []},
        "targets": [target("complete", "<=", 0, 1, name, why)],
        "passed": False,
        "notes": [f"{name}: {why}"],
    }  # fmt: skip


def broken(name: str, sqnr_db: float = 0.5) -> Plain:
    """The record of a tensor whose zero points are wrong, and which says so."""
    record = audited(name, sqnr_db)
    record["explanation"] = {
        "fault": "zero point -1",
        "sentence": "every zero point is one too low",
        "cosine_before": cosine_of(sqnr_db),
        "cosine_after": 0.9953,
        "sqnr_db_before": sqnr_db,
        "sqnr_db_after": 20.25,
    }
    return record


def language_model(layers: int = 8, experts: int = 0, bits: int = 4) -> list[Plain]:
    """The tensors of a decoder, of which each has its SQNR by its name: worse when deeper."""
    names = ["lm_head.weight"]
    for layer in range(layers):
        block = f"model.layers.{layer}"
        names += [f"{block}.self_attn.{role}.weight" for role in ATTENTION]
        inner = [f"mlp.experts.{e}" for e in range(experts)] or ["mlp"]
        names += [f"{block}.{part}.{role}.weight" for part in inner for role in MLP]
    harder = {role: 0.4 * place for place, role in enumerate((*ATTENTION, *MLP))}
    records = []
    for name in names:
        draw, parts = Random(name), name.split(".")
        depth = int(parts[2]) / layers if "layers" in parts else 0.0
        sqnr_db = SQNR_DB[bits] - 2 * depth - harder.get(parts[-2], 0.0) + draw.gauss(0, 0.3)
        records.append(audited(name, sqnr_db, bits, energy=draw.uniform(0.5, 2)))
    plain = ["model.embed_tokens.weight", "model.norm.weight"]
    plain += [f"model.layers.{n}.input_layernorm.weight" for n in range(layers)]
    records += [audited(name) for name in plain]
    return sorted(records, key=lambda record: record["nodeid"])


def nines_db(cosine: float) -> float:
    """The SQNR at which this cosine is reached, if the scale is right."""
    return -10 * log10(1 - cosine**2)
