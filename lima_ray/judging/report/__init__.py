"""The report of a study: verdicts of people and models, and the replies they are about, as a page.

`loading` reads and checks them into `StudyVerdicts`, `sources` the replies; `sections` makes the
parts of the page, `items` and `reading` show the replies, `tables` writes figures as CSV. Imports
no torch.
"""
