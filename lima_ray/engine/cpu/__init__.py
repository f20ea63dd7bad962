"""The engine's forward pass on a CPU: batch-invariant, in fp32, by C where there is a compiler.

`forward.py` and `batch_invariant.py` are what the engine uses. All else stays in here: that some
operations are C (`kernels.py`, which PyTorch stands beside), the slots' addresses, the threads.

May import: what the engine may, and of the engine itself nothing.
"""
