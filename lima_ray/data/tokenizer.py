"""The tokenizer a run trains with: the base's own, an EOT token, and a chat template.

LIMA ends every utterance, the user's and the assistant's alike, with a new end-of-turn token (EOT)
that takes over EOS's role of stopping without its old meaning (LIMA section 3). There are no role
markers: a dialogue is `BOS user EOT assistant EOT user EOT ...`. A base that brings a chat template
along has learned to read that one, and keeps it unless the recipe asks for LIMA's form.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lima_ray.config.errors import UserError
from lima_ray.config.paths import resolve
from lima_ray.data.chat_template import analyse_template, encode_prompt
from lima_ray.data.turns import match_any, tokenise_control_names
from lima_ray.records.example import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NEW_EOT = "<|eot|>"
KNOWN_EOT = ("<|eot_id|>", "<|eot|>", "<|im_end|>", "<end_of_turn>", "<|end|>")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
INSTALL_SENTENCEPIECE = "pip install sentencepiece, or put a tokenizer.json beside it"
FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
"""Put before templates that write today's date, so that rows are the same tomorrow."""


def load_tokenizer(
    base: str, eot_token: str | None = None, template: Literal["own", "paper"] = "own"
) -> "PreTrainedTokenizerFast":
    """Load a base's tokenizer and give it EOT (as `eos_token`), a pad token and the template.

    Args:
        base: directory or hub id of the base model.
        eot_token: the EOT to use; none takes the base's own, or adds `<|eot|>`.
        template: `own` keeps the base's chat template where it has one, `paper` takes LIMA's form.

    Raises:
        UserError: no tokenizer there, or a chat template that nothing can be trained with.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = resolve(base)
    if path is not None and not any((path / f).exists() for f in TOKENIZER_FILES):
        raise UserError(
            f"{path} has no tokenizer: one of {', '.join(TOKENIZER_FILES)} must stand "
            "beside the weights"
        )
    if path is not None:
        check_sentencepiece(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path or base), trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{base} brings code of its own along, which is not run here; give a base that "
                "`transformers` knows without it"
            ) from error
        hint = f"; if it is SentencePiece's: {INSTALL_SENTENCEPIECE}" * ("tiktoken" in str(error))
        raise UserError(f"the tokenizer of {base} cannot be loaded: {error}{hint}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(
            f"the tokenizer of {base} is a {type(tokenizer).__name__}, which the library "
            "tokenizers does not run; give a base that has a tokenizer.json"
        )
    own = base_template(tokenizer)
    if getattr(tokenizer, "legacy", False):
        # LlamaTokenizer does not save `legacy`, so the export would split text in another way.
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer,
            model_max_length=tokenizer.model_max_length,
            **tokenizer.special_tokens_map,
        )
    if own and template == "own":
        tokenizer.chat_template = own
        eot = eot_of_template(tokenizer, base, eot_token)
        set_eot(tokenizer, eot)
        return tokenizer
    bos, old_eos = leading_bos(tokenizer), tokenizer.eos_token
    # Where the base's template gives its EOT a meaning, LIMA's form has one of its own.
    eot = eot_token or (None if own else base_eot(tokenizer)) or NEW_EOT
    set_eot(tokenizer, eot)
    control = {bos, eot, str(old_eos or ""), str(tokenizer.pad_token)}
    tokenizer.chat_template = lima_template(bos, eot, control, word_prefix(tokenizer))
    return tokenizer


def check_sentencepiece(folder: Path) -> None:
    """Refuse a SentencePiece model whose package is missing; `transformers` names another thing."""
    model = folder / "tokenizer.model"
    alone = model.is_file() and not any((folder / f).exists() for f in TOKENIZER_FILES[::2])
    # Others of that name, such as Llama 3's, are lines of text.
    if alone and model.read_bytes()[:1] == b"\n" and not find_spec("sentencepiece"):
        raise UserError(
            f"{model} is SentencePiece's, which is not installed: {INSTALL_SENTENCEPIECE}"
        )


def base_template(tokenizer: Any) -> str:
    """Return the chat template of the base, of several the default one, or nothing."""
    given = tokenizer.chat_template
    found = given.get("default", "") if isinstance(given, dict) else given or ""
    dated = "strftime_now" in found and not found.startswith(FIXED_DATE)
    return FIXED_DATE + found if dated else found


def eot_of_template(tokenizer: Any, base: str, eot_token: str | None) -> str:
    """Return the token that ends replies in the base's template; refuse none, or another's."""
    paper = "give the base LIMA's form instead: --model.chat_template paper"
    try:
        eot = analyse_template(tokenizer).eot
    except UserError as error:
        raise UserError(
            f"{base} has a chat template that cannot be trained with: {error}; {paper}"
        ) from error
    if eot_token not in (None, eot):
        raise UserError(
            f"model.eot_token is {eot_token}, but the chat template of {base} ends replies with "
            f"{eot}; leave it out, or {paper}"
        )
    return eot


def set_eot(tokenizer: Any, eot: str) -> None:
    """Make EOT what ends a text, and see that padding is another token."""
    old_eos = tokenizer.eos_token
    added = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
    if eot in added and added[eot].special:
        tokenizer.eos_token = eot  # adding it again would change which white space it swallows
    else:
        tokenizer.add_special_tokens({"eos_token": eot})
    if tokenizer.pad_token in (None, eot):
        tokenizer.pad_token = old_eos if old_eos not in (None, eot) else tokenizer.unk_token or eot


def describe_template(tokenizer: Any) -> str:
    syntax = analyse_template(tokenizer)
    if not syntax.roles:
        return f"chat template: LIMA's, every turn ends with {syntax.eot} and has no role marker"
    dated = ", its date held at 26 Jul 2024" * tokenizer.chat_template.startswith(FIXED_DATE)
    return (
        f"chat template: the base's own{dated}; a reply begins after {syntax.opening!r} and ends "
        f"with {syntax.eot}"
    )


def prompt_ids(tokenizer: Any, turns: Sequence[str], system: str | None = None) -> list[int]:
    """Return token ids of a dialogue to reply to, as the model was trained to see it.

    A base without a chat template gets the text itself, its turns a line each.

    Args:
        turns: the user's and the assistant's in turn; the user begins and ends.

    Raises:
        UserError: the last turn is the assistant's, or blank, or the template refuses the dialogue.
    """
    if len(turns) % 2 == 0:
        raise UserError(f"the dialogue has {len(turns)} turns; the last must be the user's")
    if not turns[-1].strip():
        raise UserError(f"turn {len(turns)} of the dialogue is {turns[-1]!r}: nothing to answer")
    if not tokenizer.chat_template:
        return text_ids(tokenizer, "\n".join([system, *turns] if system else turns))
    return encode_prompt(tokenizer, Example(tuple(turns), id="", system=system).messages())


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Return token ids of plain text to go on with; a special token's name in it is only text."""
    special = match_any(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)
    if not special.search(text):
        return tokenizer(text, split_special_tokens=False).input_ids
    bos = [tokenizer.bos_token_id] if leading_bos(tokenizer) else []
    return bos + tokenise_control_names(tokenizer, special, text, first=True)


def template_eot_ids(tokenizer: Any) -> set[int]:
    """Return the id of the token that ends a reply in the chat template, where that is known."""
    if not tokenizer.chat_template:
        return set()
    try:
        return {tokenizer.convert_tokens_to_ids(analyse_template(tokenizer).eot)}
    except UserError:
        return set()


def eot_id(tokenizer: "PreTrainedTokenizerFast") -> int:
    return tokenizer.get_vocab()[str(tokenizer.eos_token)]


def base_eot(tokenizer: "PreTrainedTokenizerFast") -> str | None:
    """Return the end-of-turn token a base brings along, such as Llama 3's `<|eot_id|>`."""
    vocab = tokenizer.get_vocab()
    return next((token for token in KNOWN_EOT if token in vocab), None)


def leading_bos(tokenizer: "PreTrainedTokenizerFast") -> str:
    """Return the token that the tokenizer puts before every text, or nothing."""
    first = tokenizer("a", split_special_tokens=False).input_ids[:1]
    return str(tokenizer.bos_token) if first == [tokenizer.bos_token_id] else ""


def word_prefix(tokenizer: "PreTrainedTokenizerFast") -> str:
    """Return what makes a turn's first word a token that pretraining knows: a space, or nothing."""

    # LLaMA's SentencePiece marks a word's start with a space it adds before a text, but not after a
    # control token; there `the` would become the inside of a word.
    def after_eot(text: str) -> list[int]:
        return tokenizer(f"{tokenizer.eos_token}{text}", add_special_tokens=False).input_ids[1:]

    text_alone = tokenizer("the", add_special_tokens=False).input_ids
    return " " if after_eot("the") != text_alone == after_eot(" the") else ""


def lima_template(bos: str, eot: str, control: set[str], start: str) -> str:
    """Return the Jinja template of LIMA's form; a system message stands before the first user turn.

    A turn that spells a control token (`<s>` in a piece of HTML, say) is taken as text by
    `lima_template`, which says so by `names_are_text`. For other programs, which would take it for
    control, a zero-width space is put after its first character.
    """
    content = "((system if loop.first else '') + message['content'])"
    spelt = content
    for token in sorted(control - {""}):
        spelt += f"|replace({token!r}, {token[0] + chr(0x200B) + token[1:]!r})"
    content = f"({content} if names_are_text else {spelt})"
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
