"""The report of a study: verdicts of people and models, and the replies they are about, as a page.

`loading` reads and checks them into `StudyVerdicts`; each other file makes a `Section` of one
subject from them; `reading` shows the replies. Imports no torch.
"""
