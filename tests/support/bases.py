"""Tokenizers of the kinds that bases bring along, built here from a few words."""

import json
from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

TEXTS = ["the cat reads, the sun writes\nWhy? how. Hi", "moon house green river sings slowly"] * 2


def byte_level(*specials: str) -> Tokenizer:
    """A byte-level BPE tokenizer, as Llama 3's and Qwen's, with these special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(TEXTS, trainer)
    bpe.add_special_tokens(list(specials))
    return bpe


def with_bos(tokenizer: Tokenizer, bos: str) -> Tokenizer:
    """The tokenizer, BOS before every text."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges as LLaMA's SentencePiece model has them, with bytes to fall back on."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=60, show_progress=False))
    model = json.loads(bpe.to_str())["model"]
    start = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [*start, *sorted(model["vocab"], key=model["vocab"].get)]
    return {w: i for i, w in enumerate(words)}, [(a, b) for a, b in model["merges"]]


def llama_3() -> PreTrainedTokenizerFast:
    """A tokenizer that has an EOT of its own beside EOS, as Llama 3's base."""
    bpe = byte_level("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=with_bos(bpe, "<|begin_of_text|>"),
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
    )


def qwen() -> PreTrainedTokenizerFast:
    """A tokenizer without BOS."""
    bpe = byte_level("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


def metaspace() -> PreTrainedTokenizerFast:
    """A SentencePiece-like tokenizer in the generic class."""
    vocab, merges = pieces()
    bpe = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    bpe.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    bpe.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=with_bos(bpe, "<s>"),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )


def llama() -> PreTrainedTokenizerFast:
    """The same pieces in LLaMA's class."""
    vocab, merges = pieces()
    return LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)


BASES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "llama 3": llama_3,
    "qwen": qwen,
    "metaspace": metaspace,
    "llama": llama,
}
