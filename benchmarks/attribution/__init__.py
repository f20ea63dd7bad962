"""Which planted rows attribution finds, on the miniature."""
