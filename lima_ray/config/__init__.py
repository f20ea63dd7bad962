"""What every step is given: the recipe, the command line, paths, and the cluster it runs on.

Imports no other room, and torch, ray and transformers only inside functions.
"""
