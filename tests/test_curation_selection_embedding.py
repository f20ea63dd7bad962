"""Static embeddings, from the files of a wheel."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from wordllama.inference import WordLlamaInference

from lima_ray.curation.selection.embedding import embed, load_static

TEXTS = [
    "Why is the sky blue?",
    "How do I bake bread? " * 300,
    "日本語 ü 🙂",
    "def f(x):\n\treturn x\n",
]


def test_vectors_are_those_of_the_wheels_own_code() -> None:
    tokens_VD, tokenizer = load_static()
    expected = WordLlamaInference(tokens_VD, tokenizer).embed(TEXTS, norm=True)
    load_static.cache_clear()  # the code above turns the tokenizer's padding on
    assert np.allclose(embed(TEXTS), expected, atol=1e-5)


def test_vectors_have_length_1_and_do_not_depend_on_other_texts() -> None:
    many = [f"{text} {number}" for number in range(70) for text in TEXTS]
    vectors_ND = embed(many)
    assert vectors_ND.shape == (len(many), 256) and vectors_ND.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors_ND, axis=1), 1, atol=1e-5)
    assert np.array_equal(embed(many[-2:]), vectors_ND[-2:])


def test_a_text_without_tokens_has_the_zero_vector() -> None:
    assert not embed([""]).any() and embed([]).shape == (0, 256)


def test_texts_of_one_subject_are_nearer() -> None:
    bread, loaf, proof = embed(
        ["How do I bake bread?", "Baking a loaf at home", "Prove Pythagoras' theorem"]
    )
    assert bread @ loaf > max(bread @ proof, loaf @ proof)


def test_embedding_needs_no_network_and_leaves_logging_alone() -> None:
    said = """
import logging, socket
def refuse(*args, **kwargs):
    raise AssertionError("a connection")
socket.socket.connect = socket.getaddrinfo = refuse
from lima_ray.curation.selection.embedding import embed
assert embed(["bread"]).any() and not logging.getLogger().handlers
"""
    subprocess.run([sys.executable, "-c", said], check=True, cwd=Path(__file__).parents[1])
