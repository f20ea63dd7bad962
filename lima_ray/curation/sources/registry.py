"""Which reader makes candidates of which section of a recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lima_ray.curation.recipe import (
    Curation,
    Examples,
    NaturalInstructions,
    Reddit,
    SourceSection,
    StackExchange,
    StackExchangeDialogues,
    WikiHow,
)
from lima_ray.curation.sources.examples import ExamplesReader
from lima_ray.curation.sources.natural_instructions import NaturalInstructionsReader
from lima_ray.curation.sources.reddit import RedditReader
from lima_ray.curation.sources.stackexchange.dialogues import DialogueReader
from lima_ray.curation.sources.stackexchange.questions import StackExchangeReader
from lima_ray.curation.sources.wikihow import WikiHowReader
from lima_ray.curation.stages import SourceReader

READERS: dict[type[SourceSection], Callable[[Any, Path, int], SourceReader]] = {
    StackExchange: StackExchangeReader,
    StackExchangeDialogues: DialogueReader,
    WikiHow: WikiHowReader,
    Reddit: RedditReader,
    NaturalInstructions: NaturalInstructionsReader,
    Examples: ExamplesReader,
}


def make_reader(section: SourceSection, curation: Curation) -> SourceReader:
    """Return the reader of a source."""
    return READERS[type(section)](section, Path(curation.inputs), curation.seed)
