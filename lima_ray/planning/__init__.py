"""What a training needs before it starts: memory, disk, steps, hours; and what `auto` stands for.

May import training and the rooms below it.
"""
