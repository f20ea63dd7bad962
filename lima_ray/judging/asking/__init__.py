"""Judges asked many questions: who they are, what they cost, and the journal of their verdicts."""
