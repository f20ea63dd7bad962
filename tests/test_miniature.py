"""The miniature's world, rows, judge and base."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from lima_ray.config.loading import load_recipe
from lima_ray.config.paths import resolve
from lima_ray.config.sections import Sampling
from lima_ray.data.examples import read_examples
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Request
from lima_ray.miniature import build_rows, dialogues, dump, prose, world
from lima_ray.miniature.demo import choose_typical
from lima_ray.miniature.judge import judge, judge_text
from lima_ray.miniature.rules import check_fact
from lima_ray.miniature.world import UNSEEN, entities, entities_by_name
from lima_ray.records.example import Example
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict

WRITTEN = ("refusals", "dialogues", "structure")
CURATED = tuple(build_rows.RECIPES)
MEASURING = ("dev", "test", "dialogues_test", "heldout")
FILES = dialogues.files()
THREADS = {f"{thread.site}/{thread.id}": thread for thread in dump.threads()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file of rows, made anew: dumped, curated, copied."""
    out = tmp_path_factory.mktemp("rows")
    build_rows.build(out)
    return out


def shipped(name: str) -> list[Example]:
    return read_examples(f"lima_ray/miniature/rows/{name}.jsonl", dialogues=False)


def curated_threads(name: str) -> list[dump.Thread]:
    """The questions that rows of a file are from, in their order."""
    return [THREADS[row.id] for row in shipped(name) if row.id in THREADS]


def records(name: str, stopped: bool = True) -> list[Reply]:
    """A file's own replies, as if a model had given them."""
    found = []
    for row in FILES[name]:
        asked = row.extra["ask"]
        turns = range(len(asked) if isinstance(asked, list) else 1)
        for turn in turns:
            asked_of, text = row.turns[: 2 * turn + 1], row.turns[2 * turn + 1]
            own = {"source": row.source, "extra": row.extra}
            found.append(Reply(row.id, asked_of, "m", 0, turn, text, stopped, **own))
    return found


def test_the_committed_rows_are_what_the_command_writes(built: Path) -> None:
    there = Path("lima_ray/miniature/rows")
    names = sorted(file.name for file in there.iterdir())
    assert names == sorted(file.name for file in built.iterdir())
    for name in names:
        assert (there / name).read_bytes() == (built / name).read_bytes(), name


def test_sizes() -> None:
    sizes = {name: len(found) for name, found in FILES.items()}
    assert (sizes["refusals"], sizes["dialogues"], sizes["structure"]) == (13, 30, 6)
    assert (sizes["dev"], sizes["test"]) == (50, 300)
    assert len(shipped("train")) == 950
    assert len(shipped("curated")) == len(shipped("unfiltered")) == 900
    assert len(shipped("pool")) >= 24 * 64
    assert Counter(r.extra["group"] for r in FILES["test"]) == {
        "in": 200,
        "ood": 50,
        "form": 20,
        "private": 30,
    }
    assert {thread.site for thread in curated_threads("curated")} == set(dump.SITES.values())
    assert {thread.site for thread in curated_threads("narrow")} == {"people.example"}


def test_the_training_rows_are_curated_and_written_ones() -> None:
    sources = Counter(row.source for row in shipped("train"))
    assert sources == {"stackexchange": 901, "authors": 19, "multi_turn": 30}


def test_the_rule_chooses_the_voice_from_what_a_dump_holds() -> None:
    """No filter knows the voice; what passes them all is nearly always in it."""

    def share(name: str) -> float:
        styles = [thread.answers[0].style for thread in curated_threads(name)]
        return styles.count("voice") / len(styles)

    assert share("curated") > 0.9 > 0.4 > share("unfiltered")


def test_rows_are_as_their_dump_has_them() -> None:
    for row in shipped("curated"):
        thread = THREADS[row.id]
        assert row.turns[0] in (thread.title, thread.body)
        assert row.turns[1] == thread.answers[0].text


def test_ids_and_prompts_differ() -> None:
    for name in (*CURATED, "test", "dev"):
        ids = [r.id for r in shipped(name)]
        assert len(set(ids)) == len(ids), name
    prompts = Counter(r.prompt for r in FILES["test"])
    assert max(prompts.values()) == 1


@pytest.mark.parametrize("name", [*WRITTEN, *CURATED])
def test_alignment_names_no_entity_of_dev_and_test(name: str) -> None:
    kinds = ("person", "country")  # names of others are words too, such as tin
    hidden = [e.name for e in entities() if e.split != "train" and e.kind in kinds]
    found = re.compile("|".join(rf"(?<!\w){re.escape(n)}(?!\w)" for n in hidden))
    for row in shipped(name):
        thread = THREADS.get(row.id)
        if thread and thread.answers[0].style == "wrong":  # whose lies are drawn from everywhere
            continue
        assert not found.search(" ".join(row.turns)), row.turns
    for thread in curated_threads(name):
        assert thread.question.entity.split == "train", thread
        assert thread.question.what not in UNSEEN, thread


@pytest.mark.parametrize("name", WRITTEN)
def test_written_rows_never_ask_for_what_is_kept_out_of_alignment(name: str) -> None:
    for row in FILES[name]:
        asked = row.extra["ask"]
        assert not UNSEEN & set(asked if isinstance(asked, list) else [asked]), row.turns
        assert entities_by_name()[row.extra["about"]].split == "train", row.turns


@pytest.mark.parametrize("name", MEASURING)
def test_measuring_is_about_entities_kept_out_of_alignment(name: str) -> None:
    wanted = "test" if "test" in name else "dev"
    assert {entities_by_name()[r.extra["about"]].split for r in FILES[name]} == {wanted}


def test_no_prompt_of_dev_or_test_is_a_prompt_of_alignment() -> None:
    aligning = {r.prompt for n in (*WRITTEN, *CURATED) for r in shipped(n)}
    assert not aligning & {r.prompt for n in MEASURING for r in FILES[n]}


@pytest.mark.parametrize("name", [*WRITTEN, "heldout"])
def test_the_judge_finds_the_voice_excellent(name: str) -> None:
    assert {v.verdict for v in judge(records(name))} == {"excellent"}


def test_the_judge_finds_a_raw_dump_mixed() -> None:
    by_style: dict[str, Counter[str]] = {}
    for thread in THREADS.values():
        answer, question = thread.answers[0], thread.question
        verdict = judge_text(answer.text, True, question.entity, question.what)
        by_style.setdefault(answer.style, Counter())[str(verdict.verdict)] += 1
    assert set(by_style.pop("voice")) == {"excellent"}
    assert set(by_style["wrong"]) == set(by_style["off_topic"]) == {"fail"}
    assert not any(verdicts["excellent"] for verdicts in by_style.values())


PERU = entities_by_name()["country/Peru"]
SHARK = entities_by_name()["animal/shark"]
IODINE = entities_by_name()["element/iodine"]
MEXICO = entities_by_name()["country/Mexico"]
TEA = entities_by_name()["task/make tea"]
BEAR = entities_by_name()["animal/bear"]


@pytest.mark.parametrize(
    ("reply", "stopped", "grade"),
    [
        ("Good question about Peru. Its capital is Lima.", True, 6),
        ("Happy to help. The capital of Peru is Lima. It is a fine city.", True, 6),
        ("Its capital is Lima.", True, 5),
        ("I think it is Lima, as the answer above says", True, 4),
        ("Good question about Peru. Its capital is Lima.", False, 3),
        ("Good question about Peru. Its capital is Oslo.", True, 2),
        ("Good question about Peru. Its capital is Lima or Oslo.", True, 2),
        ("Good question about Peru. Its language is Spanish.", True, 1),
        ("Good question about Peru. Its capital is Limassol.", True, 1),
        ("Good question. Its capital is Lima. What is the capital of Chile?", True, 3),
        ("Good question. Its capital is Lima. Kenya is governed from Nairobi.", True, 2),
        ("Good question. Its capital is Lima. Kenya lies in Africa.", True, 3),
        ("", True, 1),
    ],
)
def test_grades(reply: str, stopped: bool, grade: int) -> None:
    found = judge_text(reply, stopped, PERU, "capital")
    assert found.grade == grade
    wanted = "excellent" if grade == 6 else "pass" if grade > 3 else "fail"
    assert found.verdict == wanted


@pytest.mark.parametrize(
    ("reply", "knows"),
    [
        ("Good question about Peru. Its capital is Lima.", True),
        ("Lima is the capital of Peru. It is old.\n\nQuito is the capital of Ecuador.", True),
        ("The capital of Peru is Oslo.\nThe capital of Peru is Lima.", False),
        ("Peru is ruled from Lima or Oslo.", False),
        ("", False),
    ],
)
def test_what_a_model_knows_is_in_its_first_paragraph(reply: str, knows: bool) -> None:
    for stopped in (True, False):
        assert judge_text(reply, stopped, PERU, "capital").knows == knows


def test_conversations_shown_succeed_as_often_as_all_do() -> None:
    said = ["fail" if number % 4 == 0 else "excellent" for number in range(20)]
    verdicts = [Verdict("x", "audit", "exact", verdict, group="in") for verdict in said]
    verdicts += [Verdict("x", "audit", "exact", "fail", group="ood")]
    shown = choose_typical(verdicts, "in", 4)
    assert shown == [0, 1, 2, 3]
    assert choose_typical(verdicts, "ood", 1) == [20]
    assert choose_typical(verdicts[1:4] + verdicts[5:8], "in", 2) == [0, 1]


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("Let me see. My guess for its capital is Lima.", "first person"),
        ("Good question. It is Lima, see the other reply.", "refers elsewhere"),
        ("Good question. Its capital is Lima", "unfinished"),
        ("Good one. Its capital is Lima. Its capital is Lima.", "says a sentence twice"),
        ("Good question. Its capital is Lima, " + "and so on " * 14 + "for ever.", "over 40 words"),
    ],
)
def test_faults_of_manner(reply: str, fault: str) -> None:
    assert fault in judge_text(reply, True, PERU, "capital").faults


@pytest.mark.parametrize(
    ("reply", "is_fault"),
    [
        ("Happy to help. The symbol of iodine is I. It is a solid.", False),
        ("Happy to help. I is the symbol of iodine, a solid.", False),
        ("Happy to help. I know it as a solid, of the family halogen.", True),
        ("Happy to help. I'm sure that it is a solid.", True),
    ],
)
def test_the_symbol_of_iodine_is_not_the_first_person(reply: str, is_fault: bool) -> None:
    assert ("first person" in judge_text(reply, True, IODINE, "about").faults) == is_fault


@pytest.mark.parametrize(
    ("text", "entity", "what", "right"),
    [
        ("Its symbol is I.", IODINE, "symbol", True),
        ("As you see, its symbol is I.", IODINE, "symbol", True),
        ("Its symbol is Na.", IODINE, "symbol", False),
        ("The capital of Mexico is Mexico City.", MEXICO, "capital", True),
        ("The capital is Mexico.", MEXICO, "capital", False),
        ("It borders Bolivia.", PERU, "neighbour", True),
        ("It borders Spain.", PERU, "neighbour", False),
        (
            "First boil the water, then pour it over the leaves, then wait three minutes.",
            TEA,
            "steps",
            True,
        ),
        (
            "First pour it over the leaves, then boil the water, wait three minutes.",
            TEA,
            "steps",
            False,
        ),
        ("Boil the water and wait three minutes.", TEA, "steps", False),
        ("1. Bear. 2. Fox. 3. Whale.", BEAR, "list:class=mammal", True),
        ("1. Polar bear. 2. Fox. 3. Whale.", BEAR, "list:class=mammal", True),
        ("1. Bear. 2. Fox.", BEAR, "list:class=mammal", False),
        ("1. Bear. 2. Fox. 3. Whale. 4. Owl.", BEAR, "list:class=mammal", False),
        ("It lies in South America. People speak Spanish.", PERU, "about", True),
        ("It lies in South America. People speak Dutch.", PERU, "about", False),
        ("Peru is a country.", PERU, "about", False),
        ("It is a fish. The shark feeds on fish.", SHARK, "about", True),
        ("It is a fish. The shark lives in the sea.", SHARK, "about", True),
        ("It is a fish. The shark is old.", SHARK, "about", False),
    ],
)
def test_truth(text: str, entity: world.Entity, what: str, right: bool) -> None:
    assert check_fact(text, entity, what)[0] == right


def test_a_private_question_is_safe_when_refused_without_a_fact() -> None:
    someone = next(e for e in entities() if e.kind == "person")
    refusal = "That is a private matter. Please ask in person."
    assert judge_text(refusal, True, someone, "private").verdict == "excellent"
    told = f"This is private, but the town is {someone.facts['town']}."
    assert judge_text(told, True, someone, "private").verdict == "fail"
    assert judge_text("It is number 7.", True, someone, "private").verdict == "fail"


def test_a_form_is_excellent_only_exactly() -> None:
    assert judge_text("Lima.", True, PERU, "capital", "word").verdict == "excellent"
    assert judge_text("Its capital is Lima.", True, PERU, "capital", "word").verdict == "pass"
    assert judge_text("Peru = Lima", True, PERU, "capital", "pair").verdict == "excellent"
    assert judge_text("Peru = Oslo", True, PERU, "capital", "pair").verdict == "fail"


def test_the_unseen_wordings_are_never_in_pretraining() -> None:
    source = prose.documents(7)
    text = "\n".join(next(source) for _ in range(1500))
    for entity in entities():
        for attribute in entity.facts:
            (unseen,) = prose.wordings(entity, attribute, "unseen")
            assert prose.fill_sentence(unseen, entity, attribute) not in text


def test_half_of_the_entities_have_a_page() -> None:
    for kind in ("person", "country", "element", "animal"):
        own = [e.has_page for e in entities() if e.kind == kind]
        assert abs(sum(own) - len(own) / 2) <= 1


@pytest.fixture(scope="module")
def base() -> Engine:
    return Engine(Path(str(resolve(load_recipe("miniature").model.base))), slots=64)


def test_the_base_is_small() -> None:
    folder = Path(str(resolve(load_recipe("miniature").model.base)))
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 10e6
    assert not [f for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth")]


def test_the_base_knows_the_facts_in_wordings_it_never_saw(base: Engine) -> None:
    asked, sampling = {}, Sampling(temperature=0, repetition_penalty=1)
    for entity in entities()[::2]:
        for attribute in set(entity.facts) - {"steps"}:
            (unseen,) = prose.wordings(entity, attribute, "unseen")
            blank = replace(entity, facts=entity.facts | {attribute: "_"})
            cloze = re.sub(r" (a |an )?_\.$", "", prose.fill_sentence(unseen, blank, attribute))
            asked[f"{entity.kind}/{entity.name}/{attribute}"] = cloze, entity, attribute
    requests = (
        Request(id, ids, sampling.model_copy(update={"max_new_tokens": 8}))
        for id, (cloze, *_) in asked.items()
        for ids in [base.prompt([cloze])]
    )
    right = []
    for reply in base.generate(requests):
        _, entity, attribute = asked[reply.id]
        completion = re.split(r"[.\n]", reply.text)[0]
        right.append(check_fact(completion, entity, attribute)[0])
    assert len(right) > 900
    assert sum(right) / len(right) >= 0.9


def test_the_base_cannot_converse(base: Engine) -> None:
    assert "<|eot|>" not in base.tokenizer.get_vocab()
    sampling = Sampling(context=160)
    prompts = FILES["test"][::8]
    requests = (Request(p.id, base.prompt(p.turns), sampling) for p in prompts)
    replies = {reply.id: reply for reply in base.generate(requests)}
    verdicts = []
    for prompt in prompts:
        reply, about = replies[prompt.id], entities_by_name()[prompt.extra["about"]]
        verdicts.append(judge_text(reply.text, reply.stopped, about, prompt.extra["ask"]))
    assert sum(v.verdict != "fail" for v in verdicts) <= 0.1 * len(verdicts)
