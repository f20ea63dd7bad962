"""The decoding engine: many requests at once through one model, token by token.

`engine.py` is the loop, `requests.py` what goes in and comes out, `forward.py` what the loop needs
of a device, `cuda_graphs.py` that on a GPU and `cpu/` that on a CPU. Nothing here knows of HTTP,
Ray, or files of replies, and nothing but `cpu/` of C.

Imports `config`, `data` and `model`. It exports nothing itself, so that the types of `requests.py`
are imported without torch.
"""
