"""One run of TRL's SFTTrainer for `benchmarks/train.py`, in an environment that holds TRL.

It gets rows already encoded and in order, takes the same steps with the same AdamW and learning
rates, and prints one JSON object with losses, seconds a step and peak memory. Nothing of lima_ray
is imported here.

    python trl_sft.py CONFIG.json
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Stopwatch(TrainerCallback):
    """Sets each step's learning rate, and notes its seconds and loss."""

    def __init__(self, rates: list[float]) -> None:
        self.rates, self.seconds, self.losses = rates, [], []

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self.rates[state.global_step]
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.seconds.append(time.perf_counter() - self.started)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


def main(config: dict) -> None:
    torch.set_num_threads(config["threads"])
    rows = json.loads(Path(config["rows"]).read_text())
    dataset = Dataset.from_dict(
        {
            "input_ids": [r["ids"] for r in rows],
            "labels": [
                [i if m else -100 for i, m in zip(r["ids"], r["mask"], strict=True)] for r in rows
            ],
        }
    )
    model = AutoModelForCausalLM.from_pretrained(
        config["base"],
        dtype=torch.float32,
        attn_implementation="sdpa",
        trust_remote_code=False,
    )
    adam = torch.optim.AdamW(model.parameters(), fused=True, **config["adamw"])
    stopwatch = Stopwatch(config["rates"])
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=config["out"],
            dataset_kwargs={"skip_prepare_dataset": True},
            max_steps=len(config["rates"]),
            train_sampling_strategy="sequential",
            max_grad_norm=config["clip_norm"],
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=config["bf16"],
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            max_length=None,
            **config["sft"],
        ),
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(config["base"], trust_remote_code=False),
        optimizers=(adam, None),
        callbacks=[stopwatch],
    )
    trainer.train()
    result = {
        "seconds": stopwatch.seconds,
        "losses": stopwatch.losses,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
