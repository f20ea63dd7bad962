"""The tokenizer a run trains with: the base's own, an EOT token, and the chat template.

LIMA ends every utterance, the user's and the assistant's alike, with a new end-of-turn token (EOT)
that takes over EOS's role of stopping without its old meaning (LIMA section 3). There are no role
markers: a dialogue is `BOS user EOT assistant EOT user EOT ...`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from lima_ray.config import resolve
from lima_ray.errors import UserError
from lima_ray.example import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NEW_EOT = "<|eot|>"
KNOWN_EOT = ("<|eot_id|>", "<|eot|>", "<|im_end|>", "<end_of_turn>", "<|end|>")


def load_tokenizer(base: str, eot_token: str | None = None) -> "PreTrainedTokenizerFast":
    """Load a base's tokenizer and give it EOT (as `eos_token`), a pad token and the template.

    Args:
        base: directory or hub id of the base model.
        eot_token: the EOT to use; none takes the base's own, or adds `<|eot|>`.

    Raises:
        UserError: no tokenizer there.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = resolve(base)
    if path is not None and not any((path / f).exists() for f in TOKENIZER_FILES):
        raise UserError(
            f"{path} has no tokenizer: one of {', '.join(TOKENIZER_FILES)} must stand "
            "beside the weights"
        )
    try:
        loaded = AutoTokenizer.from_pretrained(str(path or base))
    except (OSError, ValueError) as error:
        raise UserError(f"the tokenizer of {base} cannot be loaded: {error}") from error
    tokenizer = cast(PreTrainedTokenizerFast, loaded)
    if getattr(tokenizer, "legacy", False):
        # LlamaTokenizer does not save `legacy`, so the export would split text in another way.
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer,
            model_max_length=tokenizer.model_max_length,
            **tokenizer.special_tokens_map,
        )
    bos = leading_bos(tokenizer)
    old_eos = tokenizer.eos_token
    eot = eot_token or own_eot(tokenizer) or NEW_EOT
    tokenizer.add_special_tokens({"eos_token": eot})
    if tokenizer.pad_token in (None, eot):
        tokenizer.pad_token = old_eos if old_eos not in (None, eot) else tokenizer.unk_token or eot
    control = {bos, eot, str(old_eos or ""), str(tokenizer.pad_token)}
    tokenizer.chat_template = chat_template(bos, eot, control, word_start(tokenizer))
    return tokenizer


def prompt_ids(tokenizer: Any, turns: Sequence[str], system: str | None = None) -> list[int]:
    """Token ids of a dialogue to reply to, as the model was trained to see it.

    A base without a chat template gets the text itself, its turns a line each.

    Args:
        tokenizer: of an export or a base.
        turns: the user's and the assistant's in turn; the user begins and ends.
        system: a system message before them.

    Raises:
        UserError: the last turn is the assistant's, or blank.
    """
    if len(turns) % 2 == 0:
        raise UserError(f"the dialogue has {len(turns)} turns; the last must be the user's")
    if not turns[-1].strip():
        raise UserError(f"turn {len(turns)} of the dialogue is {turns[-1]!r}: nothing to answer")
    if not tokenizer.chat_template:
        return text_ids(tokenizer, "\n".join([system, *turns] if system else turns))
    return tokenizer.apply_chat_template(
        Example(tuple(turns), id="", system=system).messages(),
        add_generation_prompt=True,
        return_dict=False,
    )


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of plain text to go on with; a control token's name in it is only text."""
    return tokenizer(text, split_special_tokens=True).input_ids


def eot_id(tokenizer: "PreTrainedTokenizerFast") -> int:
    """Id of the token that ends every turn."""
    return tokenizer.get_vocab()[str(tokenizer.eos_token)]


TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def own_eot(tokenizer: "PreTrainedTokenizerFast") -> str | None:
    """The end-of-turn token a base brings along, such as Llama 3's `<|eot_id|>`."""
    vocab = tokenizer.get_vocab()
    return next((token for token in KNOWN_EOT if token in vocab), None)


def leading_bos(tokenizer: "PreTrainedTokenizerFast") -> str:
    """The token that the tokenizer puts before every text, or nothing."""
    first = tokenizer("a").input_ids[:1]
    return str(tokenizer.bos_token) if first == [tokenizer.bos_token_id] else ""


def word_start(tokenizer: "PreTrainedTokenizerFast") -> str:
    """What makes a turn's first word the token that pretraining knows: a space, or nothing.

    LLaMA's SentencePiece marks a word's start with a space it adds before a text, but not after a
    control token; there `the` would become the inside of a word.
    """

    def after_eot(text: str) -> list[int]:
        return tokenizer(f"{tokenizer.eos_token}{text}", add_special_tokens=False).input_ids[1:]

    text_alone = tokenizer("the", add_special_tokens=False).input_ids
    return " " if after_eot("the") != text_alone == after_eot(" the") else ""


def chat_template(bos: str, eot: str, control: set[str], start: str) -> str:
    """The Jinja template of LIMA's form; a system message stands before the first user turn.

    A turn that spells a control token (`<s>` in a piece of HTML, say) keeps its look but loses its
    power: a zero-width space is put after the first character.
    """
    content = "((system if loop.first else '') + message['content'])"
    for token in sorted(control - {""}):
        content += f"|replace({token!r}, {token[0] + chr(0x200B) + token[1:]!r})"
    return (
        "{%- if messages and messages[0]['role'] == 'system' -%}"
        "{%- set system = messages[0]['content'] + '\\n\\n' -%}{%- set turns = messages[1:] -%}"
        "{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}"
        f"{{{{- {bos!r} -}}}}"
        "{%- for message in turns -%}"
        "{%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}"
        "{{- raise_exception('turns alternate between user and assistant; the user begins') -}}"
        "{%- endif -%}"
        f"{{{{- {start!r} + ({content}) + {eot!r} -}}}}"
        "{%- endfor -%}"
    )
