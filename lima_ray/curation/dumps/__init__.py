"""Files as dumps are published, read as whole lines in ranges that several tasks share.

Imports `config` alone.
"""
