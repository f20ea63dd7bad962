"""What `python -m lima_ray.train` does before its first step, and what that takes."""
