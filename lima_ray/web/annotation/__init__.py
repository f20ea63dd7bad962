"""What pages share on which people decide about one thing after another: review and study.

A server on the loopback, people's names, keyboard, drafts, and how dialogues are drawn.
"""
