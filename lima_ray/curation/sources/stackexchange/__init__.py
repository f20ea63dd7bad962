"""Stack Exchange: rows of its XML, questions with their top answers, dialogues in comments.

Imports what `sources` imports, and from there `sites` and `joining`.
"""
