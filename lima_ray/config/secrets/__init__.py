"""Keys and tokens: where they are read, and how workers get them. It imports errors alone."""
