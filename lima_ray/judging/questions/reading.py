"""What a model's judgement says: the verdict on its last line, and the reasoning before it.

Only a last line that holds a verdict and nothing else but its name is one (`B`, `**Verdict:** B`,
`{"verdict": "B"}`, in a fence of code or in quotation marks of any language). Whatever was
mentioned before it is reasoning: a judge that first leans to one side and ends on the other is read
by its end.
"""

import re
import unicodedata

from lima_ray.judging.questions.wording import Wording

DRESSING = " \t*_#`.:\"'()[]{}<>$“”„‘’«»「」。\u200b\u200c\u200d\u2060\ufeff"
"""What may stand around a verdict: `**4**`, `[[A]]`, `Neither.`."""
LABEL = re.compile(
    r"(?:(?:my|the)\s+)?(?:(?:final|overall)\s+)?"
    r"(?:verdict|answer|grade|rating|score|judge?ment|decision|choice|conclusion|boxed|text)"
    r"(?:\s+is\b|[\s\*_\"'`]*[:=—–{])(?P<verdict>.*)",
    re.I,
)
"""What may stand before a verdict and names it."""
FENCE = re.compile(r"[`~\-=_*\s]*")
"""A line that holds nothing, such as the end of a fence of code."""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
LONGEST_SENTENCE = 2000
"""Characters; the time to search one grows with their square."""
NEGATED = re.compile(r"\b(not|nor|cannot|never|rather than|instead of)\b|n't\b", re.I)
STATED_GRADE = re.compile(
    r"\b(?:grade|level|score|rating)(?: of| is|:)? *\**([1-6])\b(?!\.\d)"
    r"|(?<![\d.])([1-6])\b\** (?:fits|is the best fit|best describes)",
    re.I,
)
STATED_WORDS = {
    "excellent": r"\bexcellent\b",
    "pass": r"\bpass(?:es|ed)?\b",
    "fail": r"\bfail(?:s|ed|ure)?\b",
    "safe": r"\bsafe\b",
    "unsafe": r"\bunsafe\b",
    "neither": r"\bneither\b|\bequally (?:good|helpful|useful)\b",
}
STATED_SIDE = re.compile(
    r"\b(?:answer|reply|response|assistant|option)?\s*\**\b([AB])\b\**\s+"
    r"(?:is|was|seems|wins|gives|serves|does|provides|remains)\b[^.,;]*?"
    r"(?:\b(?:better|best|stronger|superior|preferable|more helpful|more useful)\b|(?<=wins))",
)


def read_judgement(wording: Wording, text: str) -> tuple[str | int | None, str]:
    """Return the verdict on the last line and the reasoning before it; else none and all of it."""
    reasoning, _, last = text.rstrip().rpartition("\n")
    while reasoning and FENCE.fullmatch(last):
        reasoning, _, last = reasoning.rstrip().rpartition("\n")
    said = _plain(last)
    for name, meaning in wording.levels.items():
        # A grade's meaning may describe a reply in the reasoning; only its number is a verdict.
        accepted = {_plain(name)} | ({_plain(meaning)} if wording.kind != "grade" else set())
        if said in accepted:
            return wording.check(name), reasoning.strip()
    return None, text


def find_contradiction(wording: Wording, verdict: str | int, reasoning: str) -> str | int | None:
    """Return the verdict that the reasoning's last sentence states, where it is another one.

    A sentence that states none, several, or denies something contradicts nothing, nor does one that
    never ends.
    """
    sentences = [s for s in SENTENCE_END.split(reasoning) if s.strip()]
    if not sentences or len(sentences[-1]) > LONGEST_SENTENCE or NEGATED.search(sentences[-1]):
        return None
    stated = _stated(wording, sentences[-1])
    return next(iter(stated)) if len(stated) == 1 and verdict not in stated else None


def _stated(wording: Wording, sentence: str) -> set[str | int]:
    if wording.kind == "grade":
        return {int(first or second) for first, second in STATED_GRADE.findall(sentence)}
    words = {
        name
        for name, pattern in STATED_WORDS.items()
        if name in wording.levels and re.search(pattern, sentence, re.I)
    }
    sides = STATED_SIDE.findall(sentence) if wording.kind == "pairwise" else []
    return {*words, *sides}


def _plain(line: str) -> str:
    """Return a line without what stands around a verdict; letters of another width are letters."""
    said = unicodedata.normalize("NFKC", line).strip(DRESSING + "\\").casefold()
    named = LABEL.fullmatch(said)
    return named["verdict"].strip(DRESSING) if named else said
