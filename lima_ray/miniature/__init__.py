"""A small world of facts, a base that was pretrained on it, and rows that align it."""
