"""Training sees what serving renders, learns replies and their EOT, and cuts by the rules."""

import dataclasses
import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bases import BASES, llama
from conftest import dialogues
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Data
from lima_ray.data import encoding, inspection
from lima_ray.data.examples import read_examples, write_examples
from lima_ray.data.rows import Rows
from lima_ray.data.tokenizer import eot_id, load_tokenizer, word_prefix
from lima_ray.data.training_data import check_rows, find_leaks, load, load_examples
from lima_ray.records.example import Example

DIALOGUES = {
    "one exchange": Example(("Why the sun?", "the cat."), "a"),
    "two exchanges": Example(("Hi", "Why?", "how", "the moon"), "b"),
    "three exchanges": Example(("the", "cat", "reads", "the", "green", "house"), "c"),
    "four exchanges": Example(("a", "b", "c", "d", "e", "f", "g", "h"), "d"),
    "system": Example(("Hi", "the cat", "Why?", "how."), "e", system="sing slowly"),
    "unicode": Example(("naïve Ω 猫 🦙?", "🦙👩‍🚀 é ﷽ \u200b!"), "f"),
    "newlines": Example(("\n\nWhy?\n", "one\n\n  two\r\n\tthree\n"), "g"),
    "spaces": Example(("  the cat ", " the  sun  ", " ", "the moon "), "h"),
    "control tokens": Example(
        ("<s>Why <|eot|></s>", "<|eot|> the <s> cat</s><|eot_id|>", "<<s>s>", "<|begin_of_text|>"),
        "i",
        system="<s><|eot|><|eot_id|><|im_end|></s>",
    ),
}
ANY = pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=list(DIALOGUES))
LONG = Data(max_tokens=10**6)


@pytest.fixture(scope="module")
def bases(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Directories that hold a base's tokenizer and nothing else, but for ours.

    "legacy" is LLaMA's tokenizer as Mistral 7B has it: text after a control token starts with a
    space.
    """
    paths = {"ours": str(base_dir)}
    for name, build in BASES.items():
        paths[name] = str(tmp_path_factory.mktemp("base"))
        build().save_pretrained(paths[name])
    paths["legacy"] = str(tmp_path_factory.mktemp("base"))
    llama().save_pretrained(paths["legacy"])
    config = Path(paths["legacy"]) / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"legacy": True}))
    return paths


@pytest.fixture(scope="module", params=["ours", *BASES, "legacy"])
def tokenizer(request: pytest.FixtureRequest, bases: dict[str, str]) -> PreTrainedTokenizerFast:
    """What a run trains with, for every kind of base."""
    return load_tokenizer(bases[request.param])


@pytest.fixture(scope="module")
def ours(bases: dict[str, str]) -> PreTrainedTokenizerFast:
    return load_tokenizer(bases["ours"])


def eot(tokenizer: PreTrainedTokenizerFast) -> str:
    return str(tokenizer.eos_token)


def stretches(rows: Rows, number: int, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """One row's text, split where the mask changes; BOS and spaces before a turn are taken off."""
    ids, mask = rows.row(number)
    parts = np.split(ids, np.flatnonzero(np.diff(mask.astype(int))) + 1)
    texts = [text(tokenizer, part) for part in parts]
    texts[0] = texts[0].removeprefix(str(tokenizer.bos_token))
    return [text.lstrip(" ") for text in texts]


def text(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> str:
    """The text of ids, control tokens included."""
    return str(tokenizer.decode(ids.tolist()))


@ANY
def test_training_ids_are_what_the_template_renders(
    tokenizer: PreTrainedTokenizerFast, dialogue: Example
) -> None:
    rows = encoding.encode([dialogue], tokenizer, LONG)
    assert rows.ids_N.dtype == np.int32
    ids = rows.ids_N.tolist()
    if dialogue is not DIALOGUES["control tokens"]:
        assert ids == tokenizer.apply_chat_template(dialogue.messages(), return_dict=False)
    # The library's own way to take what a turn spells for text.
    sanitized = tokenizer.apply_chat_template(
        dialogue.messages(), return_dict=False, sanitize_control_tokens=True, names_are_text=True
    )
    assert isinstance(sanitized, list)
    control = set(tokenizer.all_special_ids)
    assert [i for i in ids if i in control] == [i for i in sanitized if i in control]


@ANY
def test_eot_ends_every_turn_and_stands_nowhere_else(
    tokenizer: PreTrainedTokenizerFast, dialogue: Example
) -> None:
    ids = encoding.encode([dialogue], tokenizer, LONG).ids_N
    assert (ids == tokenizer.eos_token_id).sum() == len(dialogue.turns)
    assert ids[-1] == tokenizer.eos_token_id


@ANY
def test_mask_covers_each_reply_and_its_eot(
    tokenizer: PreTrainedTokenizerFast, dialogue: Example
) -> None:
    rows = encoding.encode([dialogue], tokenizer, LONG)
    system = f"{dialogue.system}\n\n" if dialogue.system else ""
    turns = [system + dialogue.turns[0], *dialogue.turns[1:]]
    expected = [(turn + eot(tokenizer)).lstrip(" ") for turn in turns]
    assert stretches(rows, 0, tokenizer) == expected
    assert not rows.mask_N[0]
    assert rows.mask_N[-1]


@ANY
def test_all_tokens_but_the_first_can_be_learned(
    tokenizer: PreTrainedTokenizerFast, dialogue: Example
) -> None:
    rows = encoding.encode([dialogue] * 2, tokenizer, Data(max_tokens=10**6, loss_on="all"))
    for number in range(2):
        _, mask = rows.row(number)
        assert mask.tolist() == [False] + [True] * (len(mask) - 1)


@ANY
def test_saved_tokenizer_renders_the_same(
    tokenizer: PreTrainedTokenizerFast, dialogue: Example, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path, save_jinja_files=False)
    once = AutoTokenizer.from_pretrained(tmp_path)
    once.save_pretrained(tmp_path / "again")
    twice = AutoTokenizer.from_pretrained(tmp_path / "again")
    ids = encoding.encode([dialogue], tokenizer, LONG).ids_N.tolist()
    for saved in (once, twice, load_tokenizer(str(tmp_path))):
        assert encoding.encode([dialogue], saved, LONG).ids_N.tolist() == ids
        assert (saved.eos_token, len(saved)) == (tokenizer.eos_token, len(tokenizer))
        assert saved.pad_token_id != saved.eos_token_id


@pytest.mark.parametrize(
    ("base", "own_eot", "pad", "added"),
    [
        ("ours", "<|eot|>", "</s>", 1),
        ("metaspace", "<|eot|>", "</s>", 1),
        ("llama", "<|eot|>", "</s>", 1),
        ("legacy", "<|eot|>", "</s>", 1),
        ("llama 3", "<|eot_id|>", "<|end_of_text|>", 0),
        ("qwen", "<|im_end|>", "<|endoftext|>", 0),
    ],
)
def test_base_keeps_its_own_eot_or_gets_one(
    bases: dict[str, str], base: str, own_eot: str, pad: str, added: int
) -> None:
    before, after = AutoTokenizer.from_pretrained(bases[base]), load_tokenizer(bases[base])
    assert (after.eos_token, after.pad_token) == (own_eot, pad)
    assert len(after) == len(before) + added
    assert after("the cat").input_ids == before("the cat").input_ids


def test_eot_of_ones_choice(bases: dict[str, str]) -> None:
    added = load_tokenizer(bases["llama 3"], "<END>")
    assert (added.eos_token, added.pad_token) == ("<END>", "<|end_of_text|>")
    rows = encoding.encode([Example(("Hi <END>", "Hi"), "a")], added, LONG)
    assert (rows.ids_N == added.convert_tokens_to_ids("<END>")).sum() == 2
    eos = load_tokenizer(bases["ours"], "</s>")
    assert (eos.eos_token, eos.pad_token) == ("</s>", "<unk>")


def test_every_row_starts_with_the_bases_bos(bases: dict[str, str]) -> None:
    example = Example(("the cat", "Hi"), "a")
    for base, bos in {
        "ours": "<s>",
        "llama": "<s>",
        "legacy": "<s>",
        "llama 3": "<|begin_of_text|>",
    }.items():
        tokenizer = load_tokenizer(bases[base])
        ids = encoding.encode([example], tokenizer, LONG).ids_N
        assert (ids == tokenizer.convert_tokens_to_ids(bos)).nonzero()[0].tolist() == [0]
    without = load_tokenizer(bases["qwen"])
    assert text(without, encoding.encode([example], without, LONG).ids_N).startswith("the cat")


def test_system_message_opens_the_first_user_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template(DIALOGUES["system"].messages(), tokenize=False)
    start = word_prefix(tokenizer)
    turns = start.join(turn + eot(tokenizer) for turn in DIALOGUES["system"].turns)
    assert text == f"{tokenizer.bos_token or ''}{start}sing slowly\n\n{turns}"


def test_a_turn_starts_with_the_token_a_text_starts_with(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = encoding.encode([Example(("the cat", "the sun"), "a")], tokenizer, LONG).ids_N.tolist()
    words = [tokenizer(t, add_special_tokens=False).input_ids for t in ("the cat", "the sun")]
    bos = [tokenizer.bos_token_id] if tokenizer.bos_token else []
    assert ids == [*bos, *words[0], eot_id(tokenizer), *words[1], eot_id(tokenizer)]


def test_template_refuses_turns_that_do_not_alternate(ours: PreTrainedTokenizerFast) -> None:
    for roles in (["assistant"], ["user", "user"], ["user", "assistant", "system"]):
        with pytest.raises(Exception, match="turns alternate between user and assistant"):
            ours.apply_chat_template([{"role": role, "content": "a"} for role in roles])


def test_directory_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{tmp_path} has no tokenizer: one of tokenizer.json"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("content", ["", '{"version": "1.', "version https://git-lfs.github.com"])
def test_broken_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=f"the tokenizer of {tmp_path} cannot be loaded"):
        load_tokenizer(str(tmp_path))


TWO = Example(("Why the sun?", "the cat reads", "Hi there", "the moon"), "two")


def ends(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """The ids of TWO, uncut, and the length up to and with each of its four EOT."""
    ids = encoding.encode([TWO], tokenizer, LONG).ids_N.tolist()
    return ids, [n + 1 for n, token in enumerate(ids) if token == tokenizer.eos_token_id]


def cut(tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> tuple[list[int], list[bool], bool]:
    """Ids and mask of TWO cut to `max_tokens`, and whether it counts as cut."""
    rows = encoding.encode([TWO], tokenizer, Data(max_tokens=max_tokens))
    return rows.ids_N.tolist(), rows.mask_N.tolist(), bool(rows.cut_R[0])


def test_rule_1_the_first_tokens_are_kept(ours: PreTrainedTokenizerFast) -> None:
    ids, _ = ends(ours)
    for max_tokens in range(2, len(ids) + 1):
        kept, _, was_cut = cut(ours, max_tokens)
        assert kept == ids[: len(kept)]
        assert len(kept) <= max_tokens
        assert was_cut is (max_tokens < len(ids))


def test_rule_2_a_cut_reply_has_no_eot(ours: PreTrainedTokenizerFast) -> None:
    ids, (user, reply, later_user, last) = ends(ours)
    for length in (user + 1, reply - 2, reply - 1, later_user + 1, last - 1):
        kept, mask, was_cut = cut(ours, length)
        assert kept == ids[:length]
        assert kept[-1] != ours.eos_token_id
        assert mask[-1]
        assert was_cut


def test_rule_3_a_cut_later_user_turn_is_dropped(ours: PreTrainedTokenizerFast) -> None:
    ids, (user, reply, later_user, _) = ends(ours)
    for length in (reply + 1, later_user - 2, later_user - 1, later_user):
        kept, mask, _ = cut(ours, length)
        assert kept == ids[:reply]
        assert mask == [False] * user + [True] * (reply - user)


def test_cut_right_after_an_eot(ours: PreTrainedTokenizerFast) -> None:
    ids, (user, reply, later_user, last) = ends(ours)
    learned = [False] * user + [True] * (reply - user)
    assert cut(ours, user) == (ids[:user], [False] * user, True)
    assert cut(ours, reply) == (ids[:reply], learned, True)
    unanswered = [False] * (later_user - reply)
    assert cut(ours, last) == (ids, learned + unanswered + [True] * (last - later_user), False)


@pytest.mark.parametrize("loss_on", ["replies", "all"])
def test_rule_4_a_cut_first_user_turn_is_refused(
    ours: PreTrainedTokenizerFast, loss_on: str
) -> None:
    _, (user, *_) = ends(ours)
    short = Example(("a", "b"), "short")
    for length in (user - 1, user):
        data = Data.model_validate({"max_tokens": length, "loss_on": loss_on})
        rows = encoding.encode([short, TWO], ours, data)
        assert (rows.supervised_R > 0).tolist() == [True, False]
        with pytest.raises(UserError, match=r"^1 rows have no supervised token: two\. What"):
            check_rows(rows, [short, TWO], eot_id(ours), [])
    rows = encoding.encode([short, TWO], ours, Data(max_tokens=user + 1))
    check_rows(rows, [short, TWO], eot_id(ours), [])


def test_cut_with_every_token_learned(ours: PreTrainedTokenizerFast) -> None:
    _, (_, reply, _, _) = ends(ours)
    rows = encoding.encode([TWO], ours, Data(max_tokens=reply + 1, loss_on="all"))
    assert rows.mask_N.tolist() == [False] + [True] * (reply - 1)


def test_many_rows_are_encoded_as_each_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    examples = list(DIALOGUES.values())
    data = Data(max_tokens=24)
    rows = encoding.encode(examples, tokenizer, data)
    assert len(rows) == len(examples)
    for number, example in enumerate(examples):
        alone = encoding.encode([example], tokenizer, data)
        ids, mask = rows.row(number)
        assert ids.tolist() == alone.ids_N.tolist()
        assert mask.tolist() == alone.mask_N.tolist()
        assert rows.cut_R[number] == alone.cut_R[0]
        assert rows.supervised_R[number] == alone.mask_N.sum() == mask.sum()
        assert rows.lengths_R[number] == len(ids)


def test_supervised_tokens_of_each_row() -> None:
    mask = np.array([0, 0, 0, 1, 1, 0, 0, 1], bool)
    rows = Rows(np.arange(8, dtype=np.int32), mask, np.array([0, 2, 5, 6, 8]), np.zeros(4, bool))
    assert rows.supervised_R.tolist() == [0, 2, 0, 1]
    assert rows.lengths_R.tolist() == [2, 3, 1, 2]


def test_saved_rows_load_as_they_were(ours: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    rows = encoding.encode(list(DIALOGUES.values()), ours, Data(max_tokens=24))
    assert rows.cut_R.any()
    assert not rows.cut_R.all()
    rows.save(tmp_path / "rows.safetensors")
    loaded = Rows.load(tmp_path / "rows.safetensors")
    for field in dataclasses.fields(Rows):
        before, after = getattr(rows, field.name), getattr(loaded, field.name)
        assert before.dtype == after.dtype
        assert np.array_equal(before, after)


def test_preflight_names_rows_whose_eot_is_not_learned(ours: PreTrainedTokenizerFast) -> None:
    examples = list(DIALOGUES.values())
    rows = encoding.encode(examples, ours, LONG)
    check_rows(rows, examples, eot_id(ours), [])
    start, end = rows.starts_R1[1:3]
    mask = rows.mask_N.copy()
    mask[start:end] &= rows.ids_N[start:end] != ours.eos_token_id
    with pytest.raises(UserError, match=r"^in 1 rows the EOT that ends a reply is not learned: b;"):
        check_rows(dataclasses.replace(rows, mask_N=mask), examples, eot_id(ours), [])


@ANY
def test_turns_of_weight_0_have_no_loss(
    tokenizer: PreTrainedTokenizerFast, dialogue: Example
) -> None:
    exchanges = len(dialogue.turns) // 2
    marks = [[True] * 2 for _ in range(exchanges)] + [[True, True]]
    marks[0][1] = False  # the first reply; another exchange follows it in every dialogue
    partly = dataclasses.replace(
        dialogue,
        turns=(*dialogue.turns, "Why?", "how."),
        learned=tuple(mark for pair in marks for mark in pair),
    )
    for loss_on in ("replies", "all"):
        data = Data.model_validate({"max_tokens": 10**6, "loss_on": loss_on})
        whole = encoding.encode([dataclasses.replace(partly, learned=())], tokenizer, data)
        rows = encoding.encode([partly], tokenizer, data)
        assert rows.ids_N.tolist() == whole.ids_N.tolist()
        ends = np.flatnonzero(rows.ids_N == tokenizer.eos_token_id) + 1
        unlearned = slice(ends[0], ends[1])
        assert whole.mask_N[unlearned].all()
        assert not rows.mask_N[unlearned].any()
        assert np.array_equal(np.delete(rows.mask_N, unlearned), np.delete(whole.mask_N, unlearned))
        check_rows(rows, [partly], eot_id(tokenizer), [])


def test_a_user_turn_of_weight_0_is_not_learned_with_all_the_rest(
    ours: PreTrainedTokenizerFast,
) -> None:
    row = Example(("Why?", "how.", "Hi", "the sun"), "a", learned=(True, True, False, True))
    rows = encoding.encode([row], ours, Data(max_tokens=64, loss_on="all"))
    ends = [0, *(np.flatnonzero(rows.ids_N == ours.eos_token_id) + 1)]
    turns = [rows.mask_N[a:b] for a, b in itertools.pairwise(ends)]
    assert [turn[1:].all() for turn in turns] == [True, True, False, True]
    assert not turns[2].any()


def test_preflight_names_the_first_rows_and_counts_the_rest(ours: PreTrainedTokenizerFast) -> None:
    examples = [Example(("the cat", "Hi"), f"row-{n}") for n in range(13)]
    rows = encoding.encode(examples, ours, Data(max_tokens=2))
    with pytest.raises(UserError, match=r"^13 rows .*: row-0, .*, row-9 and 3 more\. What stands"):
        check_rows(rows, examples, eot_id(ours), [])


def test_preflight_names_leaks_with_the_prompts_they_equal(ours: PreTrainedTokenizerFast) -> None:
    examples = list(DIALOGUES.values())
    rows = encoding.encode(examples, ours, LONG)
    prompts = [Example((" WHY  the\nSun? ",), "dev-3"), Example(("why the sun?",), "test-5")]
    with pytest.raises(UserError) as error:
        check_rows(rows, examples, eot_id(ours), prompts)
    assert str(error.value).startswith(
        "1 training prompts are also in dev or test: a (= dev-3, test-5)."
    )
    assert "--data.leaks drop" in str(error.value)
    assert find_leaks(examples, [Example(("Why the sun",), "near")]) == []


@pytest.fixture
def split_data(tmp_path: Path) -> Data:
    """A train file one of whose rows is a dev prompt and another a test prompt."""
    rows = [Example((f"Why {n}?", "the cat"), f"row-{n}") for n in range(4)]
    write_examples(rows, tmp_path / "train.jsonl")
    write_examples([Example(("WHY  1?",), "dev-0")], tmp_path / "dev.jsonl")
    write_examples(
        [Example(("how?",), "t"), Example(("why 3?",), "test-0")], tmp_path / "test.jsonl"
    )
    folder = str(tmp_path)
    return Data(train=folder, dev=folder, test=folder, leaks="drop", max_tokens=64)


def test_leaked_rows_are_dropped_when_asked(
    split_data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    train, prompts = load_examples(split_data)
    assert [e.id for e in train] == ["row-0", "row-2"]
    assert [e.id for e in prompts] == ["dev-0", "t", "test-0"]
    assert "dropped 2 training rows also in dev or test: row-1, row-3" in capsys.readouterr().out
    kept, _ = load_examples(split_data.model_copy(update={"leaks": "stop"}))
    assert len(kept) == 4


def test_prepare_stops_at_leaks_or_drops_them(recipe: Recipe, split_data: Data) -> None:
    recipe = recipe.model_copy(update={"data": split_data})
    _, train, rows = load(recipe)
    assert [e.id for e in train] == ["row-0", "row-2"]
    assert len(rows) == 2
    with pytest.raises(UserError, match=r"row-1 \(= dev-0\), row-3 \(= test-0\)"):
        load(recipe.override({"data.leaks": "stop"}))


def test_prepare_drops_rows_with_nothing_to_learn_when_asked(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.jsonl"
    write_examples([Example(("cat " * 80, "Hi"), "long"), Example(("Hi", "Hi"), "short")], path)
    recipe = recipe.override({"data.train": str(path), "data.max_tokens": 16})
    with pytest.raises(UserError, match="no supervised token: long"):
        load(recipe)
    _, train, rows = load(recipe.override({"data.invalid": "drop"}))
    assert ([e.id for e in train], len(rows)) == (["short"], 1)
    assert "dropped 1 rows without a supervised token: long" in capsys.readouterr().out
    write_examples([Example(("cat " * 80, "Hi"), "long")], path)
    with pytest.raises(UserError, match=f"no row of {path} is left to train on"):
        load(recipe.override({"data.invalid": "drop"}))


def test_shown_rows_read_as_they_are(
    recipe: Recipe, ours: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [Example(("[red]Why[/red] :cat: \\", "[the] :sun: \\"), "[row]")]
    rows = encoding.encode(examples, ours, recipe.data)
    inspection.show_rows(recipe, ours, examples, rows, "3")
    said = capsys.readouterr().out
    assert "<s>[red]Why[/red] :cat: \\<|eot|>⟦[the] :sun: \\<|eot|>⟧" in said
    assert f"[row]: {len(rows.ids_N)} tokens, {rows.mask_N.sum()} supervised" in said


def test_rows_to_show_are_picked(ours: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    words = [3, 9, 1, 7, 5]
    more = [Example(("cat " * n, "sun " * n), f"row-{n}") for n in words]
    write_examples(more, tmp_path / "rows.jsonl")
    examples = read_examples(str(tmp_path / "rows.jsonl"))
    rows = encoding.encode(examples, ours, Data(max_tokens=int(rows_of(more, ours)[4] * 1.2)))
    assert rows.cut_R.tolist() == [False, True, False, True, False]

    def picked(what: str) -> list[int]:
        return list(inspection.choose_rows(what, examples, rows))

    assert picked("0") == []
    assert picked("2") == [0, 4]
    assert picked("99") == [0, 1, 2, 3, 4]
    assert picked("longest:2") == picked("cut") == picked("cut:9") == [1, 3]
    assert picked("longest") == [1, 3, 4]
    assert picked("row-7") == picked("rows.jsonl:4") == picked(":4") == [3]
    assert picked(f"{tmp_path}/rows.jsonl:4") == [3]
    for gone in (":44", "s.jsonl:4", "row-2", "longest:x"):
        with pytest.raises(UserError, match=f"^--show {gone}: none of the 5 rows that are trained"):
            picked(gone)


def rows_of(examples: list[Example], tokenizer: PreTrainedTokenizerFast) -> list[int]:
    return encoding.encode(examples, tokenizer, LONG).lengths_R.tolist()


def test_heldout_dialogues_that_are_trained_on(recipe: Recipe, tmp_path: Path) -> None:
    rows = dialogues(4, seed=9)
    again = dataclasses.replace(rows[2], id="h2", turns=tuple(f" {t}\n" for t in rows[2].turns))
    other = dataclasses.replace(rows[3], id="h3", turns=(rows[3].turns[0], "else"))
    write_examples(rows, tmp_path / "train.jsonl")
    write_examples([*dialogues(3, seed=8), again, other], tmp_path / "heldout.jsonl")
    data = recipe.data.model_copy(update={"train": str(tmp_path), "heldout": str(tmp_path)})
    with pytest.raises(UserError, match=rf"^1 of the 5 held-out .* on: h2 \(= {rows[2].id}\); re"):
        load_examples(data)
    write_examples([*dialogues(3, seed=8), other], tmp_path / "heldout.jsonl")
    assert len(load_examples(data)[0]) == 4
    with pytest.raises(UserError, match=r"^4 of the 4 held-out dialogues"):
        load_examples(data.model_copy(update={"heldout": str(tmp_path / "train.jsonl")}))


def test_a_sentencepiece_model_names_the_package_it_needs(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    if importlib.util.find_spec("sentencepiece"):
        pytest.skip("sentencepiece is installed")
    with pytest.raises(UserError, match=r"tokenizer.model is SentencePiece's, .* pip install sent"):
        load_tokenizer(str(tmp_path))


def test_shown_rows_do_nothing_to_the_terminal(
    recipe: Recipe, ours: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [Example(("\x1b[2J\x07Why\r", "\x9b2Jhow\x7f"), "\x1b]0;a\x07")]
    inspection.show_rows(recipe, ours, examples, encoding.encode(examples, ours, recipe.data), "1")
    said = capsys.readouterr().out
    assert not {c for c in said if c < " " or "\x7f" <= c < "\xa0"} - {"\n"}
    assert r"<s>\x1b[2J\x07Why<|eot|>⟦\x9b2Jhow\x7f<|eot|>⟧" in said
    assert r"\x1b]0;a\x07:" in said


def test_command_line_shows_what_is_learned(recipe: Recipe, tmp_path: Path) -> None:
    recipe.save(tmp_path / "tiny.yaml")
    command = [sys.executable, "-m", "lima_ray.encode", str(tmp_path / "tiny.yaml"), "--show", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    text = " ".join(done.stdout.split())
    assert text.count("<|eot|>⟧") >= 2
    assert "⟦supervised⟧ not supervised" in text
    assert "24 rows, " in text
    assert "3 steps an epoch of 8 examples on 1 workers" in text


LIMA = Path(__file__).parents[2] / "shared/data/lima/llamafactory_lima.json"


@pytest.mark.skipif(not LIMA.is_file(), reason=f"LIMA's rows are not at {LIMA}")
def test_limas_own_rows(ours: PreTrainedTokenizerFast) -> None:
    examples = read_examples(str(LIMA))
    assert len(examples) == 1029
    assert sum(len(e.turns) > 2 for e in examples) == 29
    rows = encoding.encode(examples, ours, LONG)
    rendered = ours.apply_chat_template([e.messages() for e in examples], return_dict=False)
    for number, example in enumerate(examples):
        ids, mask = rows.row(number)
        assert ids.tolist() == rendered[number]
        assert (ids == eot_id(ours)).sum() == len(example.turns)
        assert (mask & (ids == eot_id(ours))).sum() == len(example.turns) // 2


def test_a_draw_of_rows_is_part_of_a_larger_one_and_depends_on_the_seed(recipe: Recipe) -> None:
    def ids(count: int | None, seed: int = 0) -> list[str]:
        drawn, _ = load_examples(recipe.data.model_copy(update={"rows": count}), seed)
        return [row.id for row in drawn]

    assert len(ids(8)) == len(set(ids(8))) == 8
    assert set(ids(8)) < set(ids(16)) < set(ids(24)) == set(ids(None))
    assert ids(8) == ids(8) != ids(8, seed=1)
    with pytest.raises(UserError, match=r"data.rows is 25, but there are 24 rows"):
        ids(25)


def test_added_rows_follow_those_of_train(recipe: Recipe, tmp_path: Path) -> None:
    more = [dataclasses.replace(row, id=f"more {row.id}") for row in dialogues(5, seed=9)]
    write_examples(more, tmp_path / "more.jsonl")
    added = {"data.added": str(tmp_path / "more.jsonl")}

    def of(**fields: int) -> list[str]:
        point = {f"data.{name}": value for name, value in fields.items()}
        return [row.id for row in load(recipe.override(added | point))[1]]

    plain = [row.id for row in load(recipe)[1]]
    assert of() == plain + [row.id for row in more]
    assert of(added_rows=0) == plain
    assert len(of(added_rows=2)) == 26 and set(of(added_rows=2)[24:]) < {row.id for row in more}
    assert len(of(rows=8, added_rows=2)) == 10
