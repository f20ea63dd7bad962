"""What a judge is asked, in which words, and the verdict that an answer becomes.

The same for a person, a model behind an endpoint, and the exact judge.
"""
