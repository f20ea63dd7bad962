"""Servers of this machine for drills and tests, real ones that misbehave where they are told to.

Chat completions, a judge and an S3 store. Imports nothing of ours.
"""
