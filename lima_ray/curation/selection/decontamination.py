"""Decontamination: rows that repeat a prompt on which the model will be tested.

index = PromptIndex([("83", "I'm feeling a bit lonely these days, how can I ...")], overlap=8)
found = index.find(row.text)  # ("83", "im feeling a bit lonely these days how")
"""

from collections.abc import Iterable

from lima_ray.curation.selection.dedup import split_words, word_ngrams


class PromptIndex:
    """Dev and test prompts by their runs of words.

    A row repeats a prompt where any of its turns shares one run of `overlap` words with it, without
    case, punctuation and white space. GPT-3's appendix C compares so, with runs of 8 to 13 words.
    PaLM and Tülu 3 ask that runs make up 70 % or half of a test item, which lets a prompt pass that
    is repeated in part. Among 32,210 real rows (LIMA, Alpaca, wikiHow, Reddit, Stack Exchange and
    others) runs of 8 words find four that share one with LIMA's 300 test prompts, and three repeat
    one; runs of 6 find mostly phrases such as `what are some of the best`.

    A prompt of fewer words is repeated where it is a whole line of the row, such as a whole turn.

    Prompts made from templates share runs although they ask different things: let `overlap` be more
    than a template's words. Writing without spaces is compared by its clauses.
    """

    def __init__(self, prompts: Iterable[tuple[str, str]], overlap: int) -> None:
        """Index the prompts, all of which stay in memory.

        Args:
            prompts: the id and the text of each.
            overlap: words in a row that count as a repetition, 1 or more.
        """
        self.overlap = overlap
        self.runs: dict[str, str] = {}
        self.short: dict[str, str] = {}
        for id, prompt in prompts:
            words = split_words(prompt)
            if len(words) < overlap:
                self.short.setdefault(" ".join(words), id)
            for run in word_ngrams(words, overlap):
                self.runs.setdefault(run, id)
        self.short.pop("", None)  # punctuation alone is no prompt to repeat

    def find(self, text: str) -> tuple[str, str] | None:
        """Return the prompt that a row repeats first, or none.

        Args:
            text: of the whole row, each turn on lines of its own.

        Returns:
            the prompt's id, and the words that both have.
        """
        for run in word_ngrams(split_words(text), self.overlap):
            if run in self.runs:
                return self.runs[run], run
        for line in text.splitlines() if self.short else ():
            words = " ".join(split_words(line))
            if words in self.short:
                return self.short[words], words
        return None
