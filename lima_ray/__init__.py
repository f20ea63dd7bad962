"""lima_ray: align a pretrained LLaMA with a few well-chosen examples, on Ray."""

import logging

# transformers imports DeepSpeed, which warns where it finds no GPU, as on a GPU cluster's head.
logging.getLogger("DeepSpeed").addFilter(lambda record: record.funcName != "get_accelerator")
__version__ = "0.1.0"
