"""Reddit: submissions with the best story of each, or titles of questions alone (LIMA section 2.1).

The first stage reads submissions and comments in whatever files they come, filters them in the
pass, and writes what passed. The second joins them: of a submission's answers the one of highest
score decides. Bytes are tested for the subreddit's name before JSON is parsed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lima_ray.curation import filters
from lima_ray.curation.candidate import Candidate, Part, PartWriter, Table
from lima_ray.curation.filters import Result
from lima_ray.curation.recipe import Reddit
from lima_ray.curation.sources import reddit_text
from lima_ray.curation.sources.joining import join_site, read_answers, unpack_tops
from lima_ray.curation.sources.reddit_posts import Post, file_tasks, find_files, read_posts
from lima_ray.curation.stages import Task

QUESTIONS = pa.schema(
    {
        "id": pa.int64(),
        "name": pa.string(),
        "prompt": pa.string(),
        "score": pa.int64(),
        "created": pa.string(),
        "author": pa.string(),
    }
)
"""Submissions that passed; the number is their id, read in base 36."""
ANSWERS = pa.schema(
    {
        "parent": pa.int64(),
        "id": pa.int64(),
        "score": pa.int64(),
        "reason": pa.string(),
        "detail": pa.string(),
        "name": pa.string(),
        "body": pa.string(),
        "created": pa.string(),
        "author": pa.string(),
    }
)
"""Answers of enough score to them."""
LICENCE = "Reddit User Agreement"
SITE = "https://www.reddit.com"


@dataclass(frozen=True)
class Story:
    """An answer to a submission as the filters see it."""

    post: Post
    text: str
    """Cleaned."""


class RedditReader:
    """Submissions of a subreddit, as a recipe's section takes them."""

    def __init__(self, section: Reddit, inputs: Path, seed: int) -> None:
        self.section = section
        self.path = inputs / section.path
        self.titles = section.take == "titles"
        self.name = section.subreddit.lower()
        self.tests = submission_filters(section)
        self.story_tests = story_filters(section)
        later = () if self.titles else ("no_story", *self.story_tests)
        self.filters: tuple[str, ...] = (*self.tests, "repeated", *later)

    def tasks(self, stage: int, parts: Sequence[Part]) -> list[Task]:
        if stage == 0:
            return [
                task
                for file in find_files(self.path, comments=not self.titles)
                for task in file_tasks(file)
            ]
        return list(join_tasks(parts)) if stage == 1 else []

    def run(self, task: Task, out: PartWriter) -> None:
        if "part" in task.arguments:
            self.join(task.arguments, out)
            return
        tables = out.table("questions", QUESTIONS), out.table("answers", ANSWERS)
        out.extra = {"site": {"name": self.section.subreddit}}
        for post in read_posts(task.arguments, self.name, not self.titles, out.notes):
            if post.subreddit.lower() != self.name:  # such as one that a submission elsewhere shows
                if not post.subreddit:
                    out.notes["posts without a subreddit or an address"] += 1
                continue
            if post.is_comment:
                self.read_comment(post, tables[1], out)
            else:
                self.read_submission(post, tables[0], out)

    def read_submission(self, post: Post, questions: Table, out: PartWriter) -> None:
        """Filter a submission, and write it."""
        out.seen += 1
        id = f"{self.section.subreddit}/{post.id}"
        if failure := filters.first_failure(self.tests, post):
            out.drop(id, *failure)
            return
        if post.score_age_h is None:
            out.notes["submissions whose score was read at an unknown time"] += 1
        row = {"id": int(post.id, 36), "name": post.id, "score": post.score or 0}
        row |= {"prompt": reddit_text.clean_title(post.text)}
        questions.add(row | {"created": post.day, "author": post.author})

    def read_comment(self, post: Post, answers: Table, out: PartWriter) -> None:
        """Filter a comment, and write what the join needs of it."""
        if not post.top_level or post.score is None or post.score < self.section.min_score:
            return
        if post.removed or post.pinned:
            out.notes["answers that are removed or pinned"] += 1
            return
        story = Story(post, reddit_text.clean_story(post.text))
        reason, detail = filters.first_failure(self.story_tests, story) or ("", "")
        answers.add(
            {
                "parent": int(post.submission, 36),
                "id": int(post.id, 36),
                "score": post.score,
                "reason": reason,
                "detail": detail,
                "name": post.id,
                "body": "" if reason else story.text,
                "created": post.day,
                "author": post.author,
            }
        )

    def join(self, arguments: Mapping[str, Any], out: PartWriter) -> None:
        """Make candidates of the submissions of one part, each with its best story."""
        tops = unpack_tops(arguments)
        stories = read_answers([Part(Path(p)) for p in arguments["answers"]], tops)
        repeated = set(arguments["repeated"])
        for number, row in enumerate(Part(Path(arguments["part"])).read("questions").to_pylist()):
            id = f"{self.section.subreddit}/{row['name']}"
            if number in repeated:
                out.drop(id, "repeated", "it stands in the dump before")
            elif self.titles:
                out.keep(self.candidate(id, row))
            elif row["id"] not in tops:
                out.drop(id, "no_story", f"none of score {self.section.min_score:,} or more")
            elif (story := stories[row["id"]])["reason"]:
                out.drop(id, story["reason"], story["detail"])
            else:
                out.keep(self.candidate(id, row, story))

    def candidate(
        self, id: str, row: Mapping[str, Any], story: Mapping[str, Any] | None = None
    ) -> Candidate:
        """Return a submission as a prompt alone, or with a story."""
        best = story or row
        authors = dict.fromkeys(said["author"] for said in (row, best))
        why = f"submission score {row['score']:,}"
        return Candidate(
            id=id,
            turns=(row["prompt"], story["body"]) if story else (row["prompt"],),
            source=self.section.source or self.name,
            group=self.section.subreddit,
            score=float(best["score"]),
            created=best["created"],
            url=f"{SITE}/r/{self.section.subreddit}/comments/{row['name']}/"
            + (f"_/{story['name']}/" if story else ""),
            authors=tuple(f"{SITE}/user/{author}" for author in authors if author),
            licence=LICENCE,
            why=f"{why}, story score {story['score']:,}" if story else why,
        )


def join_tasks(parts: Sequence[Part]) -> Iterator[Task]:
    """Yield a task for each part that holds submissions, with the best story of each."""
    seen = np.empty(0, np.int64)
    repeated: dict[str, list[int]] = {}
    for part in parts:
        ids = part.read("questions", ["id"])["id"].to_numpy()
        again = np.isin(ids, seen)
        again[np.setdiff1d(np.arange(len(ids)), np.unique(ids, return_index=True)[1])] = True
        repeated[str(part.folder)] = np.flatnonzero(again).tolist()
        seen = np.union1d(seen, ids)
    for task in join_site("stories", parts):
        more = {"repeated": repeated[task.arguments["part"]]}
        yield Task(task.name, {**task.arguments, **more})


def submission_filters(section: Reddit) -> Mapping[str, Callable[[Post], Result]]:
    """Return the filters of a submission, in order."""
    tests: dict[str, Callable[[Post], Result]] = {
        # First what drops most.
        "score": lambda post: has_score(post, section.min_score),
        "removed": lambda post: (False, said) if (said := post.removed) else True,
        "pinned": lambda post: (False, said) if (said := post.pinned) else True,
        "too_recent": lambda post: filters.written_before(post.day, section.written_before),
        "score_age": lambda post: old_enough(post, section.min_age_h),
        "tag": lambda post: reddit_text.no_other_tag(post.text, post.flair),
    }
    if not section.over_18:
        tests["over_18"] = lambda post: (False, "for adults") if post.over_18 else True
    if section.take == "titles":
        tests["title"] = lambda post: reddit_text.is_question(reddit_text.clean_title(post.text))
    else:
        tests["link"] = lambda post: (False, "a page or picture") if post.is_link else True
        tests["title"] = lambda post: reddit_text.is_prompt(reddit_text.clean_title(post.text))
    return tests


def story_filters(section: Reddit) -> Mapping[str, Callable[[Story], Result]]:
    """Return the filters of a submission's best story, in order."""
    return {
        "story_too_recent": lambda story: filters.written_before(
            story.post.day, section.written_before
        ),
        "story_score_age": lambda story: old_enough(story.post, section.min_age_h),
        "story_length": lambda story: filters.length_between(
            story.text, section.min_chars, section.max_chars
        ),
        "story_incomplete": lambda story: reddit_text.is_complete(story.post.text),
        "story_site": lambda story: reddit_text.no_site(story.text),
    }


def has_score(post: Post, least: int) -> Result:
    """Keep a post of enough score."""
    score = post.score
    return (False, "it has none") if score is None else filters.at_least(score, least)


def old_enough(post: Post, least: float) -> Result:
    """Keep a post whose score had time to settle, or of which that is not known."""
    return True if post.score_age_h is None else filters.at_least(post.score_age_h, least)
