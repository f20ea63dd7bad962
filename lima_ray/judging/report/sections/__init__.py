"""The parts of the report, one subject a file: each makes a `Section` of a study's verdicts."""
