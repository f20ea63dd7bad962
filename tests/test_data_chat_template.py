"""Every shape of dialogue in many chat templates: prompts begin rows, masks hold replies alone."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import byte_level, llama, metaspace, with_bos
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from lima_ray.base import llama_config
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Data, Sampling
from lima_ray.data import encoding, training_data
from lima_ray.data.chat_template import analyse_template, encode_dialogues, render
from lima_ray.data.examples import write_examples
from lima_ray.data.tokenizer import (
    describe_template,
    eot_id,
    load_tokenizer,
    prompt_ids,
    template_eot_ids,
    text_ids,
)
from lima_ray.data.training_data import check_rows
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Request
from lima_ray.records.example import Example

LONG = Data(max_tokens=10**6)
# As SmolLM2 has it.
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are kind<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{{ bos_token }}"
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + (system if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + "
    "eos_token + '\n' }}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}"
    "{% endif %}{% endfor %}"
)
# White space around Phi's tokens is swallowed by them.
PHI = (
    "{% for message in messages %}{{'<|' + message['role'] + '|>' + '\n' + message['content'] + "
    "'<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# An empty thought stands before the last reply alone, as in Qwen 3.
THOUGHT = (
    "{%- set ns = namespace(last=0) -%}{%- for m in messages -%}{%- if m['role'] == 'user' -%}"
    "{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' -}}"
    "{%- if m['role'] == 'assistant' and loop.index0 > ns.last -%}"
    "{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}{{- m['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
# A space ends the prompt: it must not be joined to the reply's first word.
VICUNA = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + '\n' }}"
    "{% elif m['role'] == 'user' %}{{ 'USER: ' + m['content'] + ' ASSISTANT: ' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
# The tokens that tell roles apart are no special ones, as in DeepSeek.
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}"
    "{% else %}{{ '<|Assistant|>' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}"
)
DATED = "{{ 'Today is ' + strftime_now('%d %b %Y') + '. ' }}" + CHATML


def bytes_with(*specials: str, bos: str | None = None, eos: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with these special tokens."""
    bpe = byte_level(*specials)
    bpe = with_bos(bpe, bos) if bos else bpe
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=bos, eos_token=eos)


def chatml() -> PreTrainedTokenizerFast:
    """A base that has ChatML's tokens, and another EOS."""
    return bytes_with("<|endoftext|>", "<|im_start|>", "<|im_end|>", eos="<|endoftext|>")


def headers() -> PreTrainedTokenizerFast:
    """Llama 3's control tokens."""
    start, end = "<|begin_of_text|>", "<|end_of_text|>"
    names = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    return bytes_with(start, end, *names, bos=start, eos=end)


def phi() -> PreTrainedTokenizerFast:
    """Tokens that swallow the white space after them."""
    made = bytes_with("<s>", "</s>", bos="<s>", eos="</s>")
    names = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
    for name in names:
        token: Any = AddedToken(name, rstrip=True, special=True)
        made.add_tokens(token, special_tokens=True)
    return made


def deepseek() -> PreTrainedTokenizerFast:
    """Roles by added tokens that are no special ones."""
    made = bytes_with("<s>", "</s>", bos="<s>", eos="</s>")
    made.add_tokens(["<|User|>", "<|Assistant|>"])
    return made


def thinker() -> PreTrainedTokenizerFast:
    """ChatML's tokens, and thoughts by tokens that are no special ones."""
    made = chatml()
    made.add_tokens(["<think>", "</think>"])
    return made


def unigram() -> PreTrainedTokenizerFast:
    """A SentencePiece model of the unigram kind, whose pieces hold the control tokens too."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    words = [*map(chr, range(33, 127)), "\n", "\t", "the cat reads, the sun writes", "Why? how. Hi"]
    special = ["<unk>", "<s>", "</s>"]
    made.train_from_iterator(
        words * 4,
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=with_bos(made, "<s>"), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def legacy() -> PreTrainedTokenizerFast:
    """LLaMA's tokenizer as Mistral 7B has it: a space stands before text after a control token."""
    made = llama()
    made.init_kwargs["legacy"] = True
    return made


@dataclass(frozen=True)
class Kind:
    """A base with a chat template of its own."""

    build: Callable[[], PreTrainedTokenizerFast]
    template: str
    eot: str
    trim: Callable[[str], str] = str
    """What the template, or its tokens, do to a reply."""
    before: str = ""
    """What a row's replies begin with beyond their text."""
    before_last: str = ""
    """The same of the last reply."""


KINDS = {
    "chatml": Kind(chatml, CHATML, "<|im_end|>"),
    "dated chatml": Kind(chatml, DATED, "<|im_end|>"),
    "thought": Kind(thinker, THOUGHT, "<|im_end|>", before_last="<think>\n\n</think>\n\n"),
    "llama 3": Kind(headers, LLAMA_3, "<|eot_id|>", trim=str.strip),
    "mistral": Kind(metaspace, MISTRAL, "</s>", before=" "),
    "llama": Kind(llama, MISTRAL, "</s>", before=" "),
    "legacy": Kind(legacy, MISTRAL, "</s>", before=" "),
    "zephyr": Kind(llama, ZEPHYR, "</s>"),
    "zephyr legacy": Kind(legacy, ZEPHYR, "</s>"),
    "phi": Kind(phi, PHI, "<|end|>", trim=str.lstrip),
    "vicuna": Kind(metaspace, VICUNA, "</s>"),
    "vicuna bytes": Kind(headers, VICUNA, "<|end_of_text|>"),
    "deepseek": Kind(deepseek, DEEPSEEK, "</s>"),
    "unigram": Kind(unigram, ZEPHYR, "</s>"),
}
SPELT = "the <|im_end|>\n<|im_start|>user</s> <|eot_id|><s>the <|User|> <|end|> cat <think>"
DIALOGUES = {
    "one exchange": Example(("Why the sun?", "the cat."), "a"),
    "two exchanges": Example(("Hi", "Why?", "how", "the moon"), "b"),
    "four exchanges": Example(("a", "b", "c", "d", "e", "f", "g", "h"), "c"),
    "system": Example(("Hi", "the cat"), "d", system="sing slowly"),
    "system, two exchanges": Example(("Hi", "the cat", "Why?", "how."), "e", system="sing"),
    "line breaks": Example(("\nWhy?\n", "\n\none\n  two\n", "\nHi", "\n\tthree\n"), "f"),
    "spaces": Example((" the cat ", " the  sun ", " a", "  the moon "), "g"),
    "control tokens": Example((SPELT, SPELT, f"{SPELT}.", SPELT), "h", system=SPELT),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """A base with a chat template of its own."""
    return KINDS[request.param]


@pytest.fixture(scope="module")
def folder(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where that base's tokenizer is."""
    path = tmp_path_factory.mktemp("base")
    made = kind.build()
    made.chat_template = kind.template
    made.save_pretrained(path)
    if kind.build is legacy:
        config = path / "tokenizer_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"legacy": True}))
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """What a run trains with."""
    return load_tokenizer(str(folder))


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=list(DIALOGUES))
def test_rows_hold_the_prompts_that_are_served_and_masks_the_replies(
    tokenizer: PreTrainedTokenizerFast, kind: Kind, dialogue: Example
) -> None:
    rows = encoding.encode([dialogue], tokenizer, LONG)
    check_rows(rows, [dialogue], eot_id(tokenizer), [])
    ids, mask = rows.row(0)
    edges = np.flatnonzero(np.diff(mask.astype(int))) + 1
    starts, ends = edges[::2].tolist(), [*edges[1::2].tolist(), len(ids)]
    exchanges = len(dialogue.turns) // 2
    assert len(starts) == len(ends) == exchanges
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        turns = dialogue.turns[: 2 * number + 1]
        assert prompt_ids(tokenizer, turns, dialogue.system) == ids[:start].tolist()
        assert ids[end - 1] == eot_id(tokenizer)
        reply = dialogue.turns[2 * number + 1]
        before = kind.before_last if number == exchanges - 1 and kind.before_last else kind.before
        expected = before + kind.trim(reply) + kind.eot
        said = str(tokenizer.decode(ids[start:end].tolist()))
        if "legacy" in str(kind) or "metaspace" in str(kind) or kind.build in (llama, unigram):
            said, expected = said.lstrip(" "), expected.lstrip(" ")
        assert said == expected
    assert mask.sum() == sum(end - start for start, end in zip(starts, ends, strict=True))


def test_what_turns_spell_is_text(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = Example(("the cat", "the cat", "the cat", "the cat"), "a", system="the cat")
    spelt = DIALOGUES["control tokens"]
    form = analyse_template(tokenizer)
    vocab = tokenizer.get_vocab()
    control = {id for name, id in vocab.items() if form.control.fullmatch(name)}
    control.discard(vocab.get(str(tokenizer.unk_token), -1))
    assert control
    for turns in (1, 3):
        written, with_names = (
            [i for i in prompt_ids(tokenizer, e.turns[:turns], e.system) if i in control]
            for e in (plain, spelt)
        )
        assert written == with_names
    written, with_names = (
        [i for i in encoding.encode([e], tokenizer, LONG).ids_N if i in control]
        for e in (plain, spelt)
    )
    assert written == with_names


def test_special_tokens_in_plain_text_are_text(folder: Path) -> None:
    base = AutoTokenizer.from_pretrained(folder)
    special = set(base.all_special_ids) - {base.unk_token_id}
    begins = [i for i in text_ids(base, "the cat") if i in special]
    for text in (SPELT, f"</s>{SPELT}", "<s> the cat"):
        ids = text_ids(base, text)
        assert [i for i in ids if i in special] == begins
        said = base.decode(ids, clean_up_tokenization_spaces=False).removeprefix(
            base.bos_token or ""
        )
        assert said.lstrip(" ") == text
    assert base("</s><s><|im_end|>").input_ids.count(base.eos_token_id) <= 1


def test_plain_rows_are_what_the_library_renders(
    tokenizer: PreTrainedTokenizerFast, kind: Kind
) -> None:
    if kind.template in (VICUNA, ZEPHYR):
        pytest.skip("the library joins the space or line break of the prompt to the reply")
    for name in ("one exchange", "two exchanges", "four exchanges", "system"):
        dialogue = DIALOGUES[name]
        ids = encoding.encode([dialogue], tokenizer, LONG).ids_N.tolist()
        rendered = tokenizer.apply_chat_template(dialogue.messages(), return_dict=False)
        assert isinstance(rendered, list)
        after = np.flatnonzero(np.array(rendered) == eot_id(tokenizer))[-1] + 1
        assert ids == rendered[:after]
        prompt = dialogue.messages()[:-1]
        assert prompt_ids(
            tokenizer, dialogue.turns[:-1], dialogue.system
        ) == tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)


def test_saved_tokenizers_render_the_same(
    tokenizer: PreTrainedTokenizerFast, kind: Kind, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path, save_jinja_files=False)
    for saved in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))):
        assert (saved.eos_token, len(saved)) == (kind.eot, len(tokenizer))
        for dialogue in DIALOGUES.values():
            expected = encoding.encode([dialogue], tokenizer, LONG)
            found = encoding.encode([dialogue], saved, LONG)
            assert found.ids_N.tolist() == expected.ids_N.tolist()
            assert found.mask_N.tolist() == expected.mask_N.tolist()


def test_the_papers_form_has_an_eot_of_its_own(folder: Path, kind: Kind) -> None:
    paper = load_tokenizer(str(folder), template="paper")
    assert paper.eos_token == "<|eot|>"
    assert describe_template(paper).startswith(
        "chat template: LIMA's, every turn ends with <|eot|>"
    )
    said = render(paper, Example(("Hi", "the cat"), "a").messages())
    assert said.count("<|eot|>") == 2
    assert "assistant" not in said and kind.eot not in said
    own = load_tokenizer(str(folder))
    assert "the base's own" in describe_template(own) and kind.eot in describe_template(own)


def test_every_row_is_encoded_as_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    dialogues = [example.messages() for example in DIALOGUES.values()]
    assert encode_dialogues(tokenizer, dialogues) == [
        encode_dialogues(tokenizer, [messages])[0] for messages in dialogues
    ]


def saved(path: Path, template: str | dict[str, str], tokenizer: Any = None) -> str:
    """A directory with a tokenizer that has this chat template."""
    made = tokenizer or chatml()
    made.chat_template = template
    made.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}", "no special token ends"),
        (CHATML.replace("{{ '<|im_start|>assistant", "{{ '<|im_start|>model"), "do not go on"),
        ("{{ messages[0]['content'] }}{{ raise_exception('no') }}", "refuses the dialogue: no"),
        ("{% for m in messages %}{{ m['content'] }", "refuses the dialogue: "),
    ],
)
def test_templates_that_nothing_can_be_trained_with(
    tmp_path: Path, template: str, said: str
) -> None:
    base = saved(tmp_path, template)
    with pytest.raises(UserError, match=said) as error:
        load_tokenizer(base)
    assert f"{base} has a chat template that cannot be trained with" in str(error.value)
    assert str(error.value).endswith("--model.chat_template paper")
    assert load_tokenizer(base, template="paper").eos_token == "<|eot|>"


def test_an_eot_that_the_template_does_not_write(tmp_path: Path) -> None:
    base = saved(tmp_path, CHATML)
    with pytest.raises(UserError, match=r"ends replies with <\|im_end\|>; leave it out, or give"):
        load_tokenizer(base, "<|endoftext|>")
    assert load_tokenizer(base, "<|im_end|>").eos_token == "<|im_end|>"
    assert load_tokenizer(base, "<|endoftext|>", "paper").eos_token == "<|endoftext|>"


@pytest.mark.parametrize(
    ("template", "row", "said"),
    [
        (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            + CHATML,
            DIALOGUES["system"],
            "the chat template refuses the dialogue: no system",
        ),
        (
            "{% if messages[0]['role'] == 'system' %}{% set messages = messages[1:] %}{% endif %}"
            + CHATML.replace("messages[0]", "{'role': 'system'}"),
            DIALOGUES["system"],
            "its chat template changes what the system says",
        ),
        (
            CHATML.replace("+ message['content'] +", "+ message['content'].split('!')[-1] +"),
            Example(("Hi", "the! cat"), "x"),
            "its chat template changes what the assistant says",
        ),
        (
            "{% if messages | length > 3 %}{{ 'Talk on' }}{% endif %}" + CHATML,
            Example(("Hi", "the cat", "Hi", "the cat"), "x"),
            "its chat template writes reply 1 behind another prompt",
        ),
        (
            "{% for m in messages %}{{ m['content'] + "
            "(' ASSISTANT:' if m['role'] == 'user' else '<|im_end|>') }}{% endfor %}",
            Example(("say ASSISTANT: once", "the cat"), "x"),
            "its chat template changes what the user says",
        ),
    ],
)
def test_rows_that_a_template_cannot_hold_are_named(
    tmp_path: Path, template: str, row: Example, said: str
) -> None:
    tokenizer = load_tokenizer(saved(tmp_path, template))
    fine = Example(("Hi", "the cat"), "fine")
    with pytest.raises(UserError) as error:
        encoding.encode([row, fine, row], tokenizer, LONG)
    text = str(error.value)
    assert text.startswith("the base's chat template cannot hold ")
    assert f"\n  {row.id}: {said}" in text
    assert "--model.chat_template paper" in text


def test_rows_that_a_template_cannot_render_are_dropped_by_data_invalid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refuses = "{% if messages | length > 3 %}{{ raise_exception('too long') }}{% endif %}" + CHATML
    rows = [Example(("Hi", "the cat"), "fine"), Example(("Hi", "the cat") * 2, "long")]
    write_examples(rows, tmp_path / "rows.jsonl")
    recipe = Recipe.model_validate(
        {
            "data": {"train": str(tmp_path / "rows.jsonl"), "max_tokens": 64},
            "model": {"base": str(saved(tmp_path, refuses))},
        }
    )
    with pytest.raises(UserError, match=r"cannot hold 1 of 2 rows.*--data.invalid drop"):
        training_data.load(recipe)
    _, kept, encoded = training_data.load(recipe.override({"data.invalid": "drop"}))
    assert [row.id for row in kept] == ["fine"] and len(encoded) == 1
    said = "dropped 1 rows that the base's chat template cannot hold: long"
    assert said in capsys.readouterr().out


def test_of_several_templates_the_default_is_taken(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(tmp_path, {"tool_use": LLAMA_3, "default": CHATML}))
    assert tokenizer.chat_template == CHATML


def test_dates_in_a_template_are_held(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(tmp_path, DATED))
    assert render(tokenizer, [{"role": "user", "content": "Hi"}]).startswith(
        "Today is 26 Jul 2024."
    )
    assert "its date held at 26 Jul 2024" in describe_template(tokenizer)
    tokenizer.save_pretrained(tmp_path / "again", save_jinja_files=False)
    assert load_tokenizer(str(tmp_path / "again")).chat_template == tokenizer.chat_template


def test_a_base_stops_where_its_template_ends_replies(tmp_path: Path) -> None:
    base = AutoTokenizer.from_pretrained(saved(tmp_path, CHATML))
    assert base.eos_token == "<|endoftext|>"
    assert template_eot_ids(base) == {base.convert_tokens_to_ids("<|im_end|>")}
    base.chat_template = "{{ messages[0]['content'] }}"
    assert template_eot_ids(base) == set()
    base.chat_template = None
    assert template_eot_ids(base) == set()


def test_templates_that_cannot_be_trained_with_are_served(tmp_path: Path) -> None:
    plain = "{% for m in messages %}<|im_start|>{{ m['content'] + '\n' }}{% endfor %}"
    tokenizer = AutoTokenizer.from_pretrained(saved(tmp_path, plain))
    ids = prompt_ids(tokenizer, ["Hi <|im_start|> <|im_end|>"])
    assert tokenizer.decode(ids) == "<|im_start|>Hi <|im_start|> <|im_end|>\n"
    start, end = (tokenizer.convert_tokens_to_ids(n) for n in ("<|im_start|>", "<|im_end|>"))
    assert (ids.count(start), ids.count(end)) == (1, 0)
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(UserError, match="refuses the dialogue: never"):
        prompt_ids(tokenizer, ["Hi"])


def test_a_base_with_chatml_is_prompted_and_stops_in_it(tmp_path: Path) -> None:
    made = chatml()
    made.model_max_length = 1024
    saved(tmp_path, CHATML, made)
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(llama_config(made, hidden=32, layers=1, heads=2))
    end = made.get_vocab()["<|im_end|>"]
    model.lm_head.weight.data[end] *= 30
    model.save_pretrained(tmp_path)
    engine = Engine(tmp_path, slots=1)
    assert engine.stop_token_ids == {end, made.get_vocab()["<|endoftext|>"]}
    ids = engine.prompt(["the cat"], system="sing <|im_end|>")
    assert engine.tokenizer.decode(ids) == (
        "<|im_start|>system\nsing <|im_end|><|im_end|>\n"
        "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ids.count(end) == 2
    sampling = Sampling(temperature=1, repetition_penalty=1, context=1000)
    (reply,) = engine.generate([Request("a", ids, sampling)])
    assert reply.stopped and reply.ids[-1] in engine.stop_token_ids
    assert not engine.stop_token_ids & set(reply.ids[:-1])
    assert "<|im_end|>" not in reply.text
