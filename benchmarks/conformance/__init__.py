"""Which fields of OpenAI's API a server honours, refuses, ignores, or gets wrong.

    python -m benchmarks.conformance --url http://127.0.0.1:8000/v1 --model NAME [--key KEY]

A field is *honoured* when what it asks for shows in the answer, and *refused* when the server says
400 or 422 and names it. *ignored* means that it was taken and nothing came of it; *wrong*, that the
answer contradicts it, or that the refusal has another status or names nothing.
"""
