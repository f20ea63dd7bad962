"""Build a random Llama of any size, with a BPE tokenizer trained on your text.

    python -m lima_ray.base --hidden 256 --layers 4 --vocab 4096 --text data.jsonl --out bases/small

It knows nothing, so it is for tests, benchmarks and trials in a real model's shape (a 7B is
`--hidden 4096 --layers 32 --heads 32 --vocab 32000`) where nothing can be downloaded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lima_ray.config import flags
from lima_ray.config.errors import UserError
from lima_ray.data.examples import read_examples
from lima_ray.records.files import make_readable


def build(
    text: str,
    out: Path,
    hidden: int = 256,
    layers: int = 4,
    heads: int = 0,
    kv_heads: int = 0,
    mlp: int = 0,
    vocab: int = 4096,
    context: int = 2048,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
    seed: int = 0,
) -> None:
    """Build a random Llama and its tokenizer, and save both as a Hugging Face model.

    Args:
        text: rows to train the tokenizer on, in any form `lima_ray.example` reads, or a .txt file.
        out: directory to write.
        hidden: width of the residual stream.
        layers: decoder layers.
        heads: attention heads; 0 makes each 64 wide.
        kv_heads: key and value heads (grouped-query attention); 0 makes one for each head.
        mlp: width of the MLP; 0 takes 8/3 of hidden, rounded up to a multiple of 64.
        vocab: vocabulary, the 256 bytes and 3 control tokens included.
        context: longest sequence, in tokens.
        dtype: format of the saved weights.
        seed: seed of the weights.
    """
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    heads = heads or max(1, hidden // 64)
    if hidden % heads or (hidden // heads) % 2:
        raise UserError(f"--hidden {hidden} over {heads} heads: each head needs an even width")
    if kv_heads and heads % kv_heads:
        raise UserError(f"--heads {heads} is no multiple of --kv_heads {kv_heads}")
    if vocab < 260:
        raise UserError(f"--vocab {vocab} is too small: 256 bytes and 3 control tokens need 260")
    tokenizer = train_tokenizer(read_texts(text), vocab, context)
    config = llama_config(tokenizer, hidden, layers, heads, kv_heads=kv_heads, mlp=mlp, dtype=dtype)
    torch.manual_seed(seed)
    torch.set_default_dtype(getattr(torch, dtype))
    model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    make_readable(*out.iterdir())
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{out}: a random Llama of {millions:.1f}M parameters, {len(tokenizer)} tokens")


def llama_config(
    tokenizer: Any,
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int = 0,
    mlp: int = 0,
    **settings: Any,
) -> Any:
    """Return the configuration of a Llama for a tokenizer of `train_tokenizer`.

    The sizes are those of `build`; `settings` are further fields of `LlamaConfig`.
    """
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=mlp or -(-8 * hidden // (3 * 64)) * 64,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads or heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **settings,
    )


def read_texts(reference: str) -> Iterator[str]:
    """Yield every turn of every row, or the lines of a .txt file."""
    if reference.endswith(".txt"):
        path = Path(reference)
        if not path.is_file():
            raise UserError(f"no file {path}")
        yield from path.read_text(encoding="utf-8").splitlines()
        return
    for row in read_examples(reference, dialogues=False):
        yield from row.turns


def train_tokenizer(texts: Iterator[str], vocab: int, context: int):
    """Return a byte-level BPE tokenizer that, as LLaMA's, starts a text with `<s>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<unk>", "<s>", "</s>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=specials,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", bpe.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def main(argv: list[str] | None = None) -> None:
    flags.parse(build, "python -m lima_ray.base", __doc__, argv)


if __name__ == "__main__":
    from lima_ray.config.command_line import run_command

    run_command("base")
