"""The decoding engine: many requests at once through one model, token by token.

`engine.py` is the loop, `requests.py` what goes in and comes out, `cuda_graphs.py` a forward pass
on a GPU and `cpu/` one on a CPU; both keep the KV cache in slots. Nothing here knows HTTP, Ray or
files of replies.

May import: `config`, `errors`, `families`, `tokenizer`, `template`, `layers` (the rotary formula).
Whoever needs the engine imports its modules; this one is empty, so that types alone cost no torch.
"""
