"""Damage of a dump, which ends what is read of it and no more."""

from lima_ray.config.errors import UserError


class DumpError(UserError):
    """A dump that is damaged; what was read before it is kept."""
