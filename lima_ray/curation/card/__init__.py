"""The card of a dataset: facts as JSON, a page with figures, and the attribution of every row.

`facts` counts, `figures` draws what was counted, `page` says it to people and writes the files.
"""
