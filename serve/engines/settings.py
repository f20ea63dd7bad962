"""How a replica serves its models; read before torch and Ray are imported."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from lima_ray.config.sections import Decoding


class EngineSettings(Decoding):
    """How a replica serves its models."""

    slots: int = Field(default=32, ge=1)
    """Replies that each model decodes at once."""
    queue: int = Field(default=64, ge=0)
    """Requests of each model that may wait for a slot; more are answered 429."""
    keep_loaded: int = Field(default=3, ge=1)
    """Models held in memory; beyond that the one idle for longest is let go. The default stays, and
    so does the newest."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of a replica; 0 takes the machine's cores."""
    stream_every_s: float = Field(default=0.1, ge=0)
    """Time between two pieces of a stream, but for the first and the last; 0 sends each token by
    itself, which takes a third of a busy CPU."""
    stuck_after_s: float = Field(default=120, gt=0)
    """A decoding step that takes longer counts as hung, and the replica is replaced."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of a replica; with vLLM, of each model in memory. 0 decodes on the CPU."""
    engine: Literal["slots", "vllm"] = "slots"
    """slots is our own; vllm runs vLLM's server, in an environment of its own."""
    vllm_packages: str = "vllm==0.33.0"
    """What pip installs into vLLM's environment (Ray's runtime_env, once a node)."""
    vllm_python: str | None = None
    """Interpreter of an environment that has vLLM, instead of vllm_packages."""
    vllm_args: str = ""
    """Further flags of vLLM's server, such as "--dtype float32 --enforce-eager"."""

    @field_validator("vllm_args")
    @classmethod
    def _no_code_of_models(cls, given: str) -> str:
        """Refuse the flag by which vLLM runs code that a model brings along."""
        if re.search(r"--trust[-_]remote[-_]code\b", given):
            raise ValueError(
                "--trust-remote-code runs code that comes with a model, which is not run here; "
                "take a model of a family that vLLM knows"
            )
        return given

    @model_validator(mode="after")
    def _weights_are_on_a_cpu(self) -> Self:
        if self.weights != "auto" and (self.gpus or self.engine == "vllm"):
            where = "with engine=vllm" if self.engine == "vllm" else f"on {self.gpus:g} GPUs"
            raise ValueError(
                f"weights is {self.weights} {where}, but only our engine on a CPU holds weights "
                "in another format than the files'; leave it auto"
            )
        return self
