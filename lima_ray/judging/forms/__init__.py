"""Questions and verdicts in the forms of other tools: Argilla, Label Studio, CSV."""
