"""What may differ when a run's epoch is chosen again; light to import, to be read first."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lima_ray.config.command_line import parse_flags
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Sampling, Section, Select, Spending
from lima_ray.config.storage.bucket import is_url
from lima_ray.config.storage.working_copy import local_path
from lima_ray.records.run import Run


class SelectionData(Section):
    """Data that the choice needs, where it is not the run's own."""

    dev: str | None = None
    """Prompts that choose the epoch; none of them may be in the training rows."""
    heldout: str | None = None
    """Dialogues never trained on, whose perplexity is drawn beside the grade."""


class SelectionOptions(Spending):
    """What may differ from the run's own recipe when the epoch is chosen again."""

    dry_run: bool = False
    """Tell what the judge will take, calls, tokens and money, and ask nothing."""

    select: Select = Select()
    sampling: Sampling = Sampling()
    data: SelectionData = SelectionData()

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        data = SelectionData(dev=recipe.data.dev, heldout=recipe.data.heldout)
        return cls(select=recipe.select, sampling=recipe.sampling, data=data)

    def apply_to(self, recipe: Recipe) -> Recipe:
        """Return a run's recipe with this choice in the place of its own."""
        data = {"data.dev": self.data.dev, "data.heldout": self.data.heldout}
        own = {"select": self.select, "sampling": self.sampling}
        return recipe.model_copy(update=own).override(data)


@dataclass(frozen=True)
class Selection:
    """A finished run, and its recipe with the choice to make."""

    run: Run
    recipe: Recipe
    options: SelectionOptions


def parse_selection(args: list[str], prog: str, doc: str) -> Selection:
    """Read `RUN [--select.field value ...]`, with the run's own values in `--help`."""
    given = args.pop(0) if args and not args[0].startswith("-") else None
    run = Run(local_path(given) if is_url(given) else Path(given).absolute()) if given else None
    if run:
        run.refresh()
    if run and not run.recipe_file.is_file():
        raise UserError(f"{given} is no run: it holds no recipe.yaml")
    recipe = run.recipe() if run else Recipe()
    choice = parse_flags(SelectionOptions, SelectionOptions.of(recipe), f"{prog} RUN", doc, args)
    if run is None:
        raise UserError(f"which run? {prog} runs/NAME")
    return Selection(run, choice.apply_to(recipe), choice)
