"""lima_ray: align a pretrained LLaMA with a few well-chosen examples, on Ray."""

__version__ = "0.1.0"
