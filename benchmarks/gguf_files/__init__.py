"""Models in GGUF, the files of llama.cpp: written from ours, and read into ours."""
