"""The engine's forward pass on a CPU, batch-invariant and in fp32.

The engine uses `forward.CpuForward` and `batch_invariant.make_batch_invariant` alone. Behind them,
a Llama's operations are one interface of a few functions that two modules have: `kernels.py`, in C,
and `reference.py`, by PyTorch. `compiler.py` says how the C is made, kept and switched off.

Imports what the engine may, and of the engine `forward` alone.
"""
