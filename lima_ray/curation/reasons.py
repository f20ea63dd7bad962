"""What each reason for which a row is dropped stands for, by the name that funnels show."""

from collections.abc import Mapping

OF_ALL: Mapping[str, str] = {
    "too_recent": "written on the day of `written_before` or later, or on a day that is not read",
    "empty": "a turn has no text",
    "duplicate": "its text equals that of an earlier row, white space and case aside",
    "near_duplicate": "its text nearly equals that of an earlier row, by `near_duplicates`",
    "contaminated": "it repeats a prompt of the files of `decontaminate`, by `overlap`",
    "review": "people dropped it",
    "not_chosen": "`choose` took others",
}
"""Of any source."""
POSTS: Mapping[str, str] = {
    "unanswered": "a question without an answer",
    "answer_score": "no answer has a score of `min_answer_score`",
    "unreadable": "the row of question or answer is no XML",
    "answer_length": "the top answer is shorter than `min_chars` or longer than `max_chars`",
    "first_person": "the top answer's writer speaks of themselves (`first_person` keeps it)",
    "references": "the top answer names another answer, a user or the site (`references` keeps it)",
}
OF_KIND: Mapping[str, Mapping[str, str]] = {
    "stackexchange": POSTS,
    "stackexchange_dialogues": POSTS
    | {
        "people": "asker or answerer is not known, or they are the same",
        "exchanges": "the two say less to each other than `min_exchanges`",
    },
    "wikihow": {
        "duplicate_title": "an article of the same title stands before",
        "title": "its title is no `How to`",
        "incomplete": "parts of the article are missing",
        "empty": "no step has a text",
        "length": "the body is shorter than `min_chars` or longer than `max_chars`",
        "lost_apostrophes": "a copy that lost its apostrophes",
        "markup": "marks of the site are left in it",
        "no_category": "its title is not in the file of `categories`",
    },
    "reddit": {
        "score": "less than `min_score`, or none",
        "removed": "removed or deleted, now or later",
        "pinned": "stickied, official or a bot's",
        "score_age": "its score was read less than `min_age_h` hours after it was written",
        "tag": "its tag or flair asks for something else than a story",
        "over_18": "marked as for adults (`over_18` keeps it)",
        "link": "it shows a page or a picture",
        "title": "its title is no prompt, or of `take: titles` no question that stands alone",
        "repeated": "it stands in the dump before",
        "no_story": "no answer has a score of `min_score`",
        "story_too_recent": "its best story was written on the day of `written_before` or later",
        "story_score_age": "its best story's score was read too early, by `min_age_h`",
        "story_length": "its best story is shorter than `min_chars` or longer than `max_chars`",
        "story_incomplete": "its best story goes on elsewhere",
        "story_site": "its best story speaks of the site",
    },
    "natural_instructions": {
        "language": "its task is in another language (`english_only`)",
        "classification": "its task's outputs are labels (`generation_only`)",
        "few_outputs": "its task has few different outputs (`generation_only`)",
        "empty": "no definition, input or output",
        "length": "the prompt is longer than `max_chars`",
        "not_drawn": "others of its task were drawn, by `examples_per_task`",
    },
    "examples": {
        "unusable": "it is no dialogue in a form that is read",
        "other_source": "its `source` is not in `only`",
        "not_held": "it has a system message, or turns that are not learned",
    },
}
"""Of a source's own, by its `kind`."""


def explain_reason(kind: str, name: str) -> str:
    """Return what a reason stands for in a source of a kind.

    Raises:
        KeyError: there is no such reason.
    """
    return OF_KIND[kind].get(name) or OF_ALL[name]
