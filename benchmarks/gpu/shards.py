"""Sharded weights (FSDP2) on one card: does a run train what one without shards does, save, go on and publish?

    python benchmarks/gpu/shards.py

One process holds all shards, which `--fsdp` refuses as useless, so this script lifts that refusal: what is tried is
torch's and accelerate's way through NCCL on a card, not what shards save. Tiny towers, generated scenes, four steps.
So far it was seen to end on a CPU only, where it starts two processes.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

FLAGS = """--stages baseline --num_train_epochs 1 --max_steps 4 --save_steps 2 --save_strategy steps
--save_total_limit 3 --eval_strategy no --load_best_model_at_end False --per_device_train_batch_size 8 --image_size 64
--projection_dim 32 --optim sgd --learning_rate 0.01 --lr_scheduler_type constant --image_augmentation none
--text_augmentation 0 --report_to none --align infonce --temperature 0.07 --ramp_epochs 0 --imagenet_normalisation
True --logging_steps 1""".split()


def child(words: list[str]):
    """A run that may have its shards alone."""
    from vsehub.training import run_d2s, stage_arguments

    stage_arguments.check_fsdp = lambda *args, **kwargs: None
    run_d2s.main(words)


def run(*words: str):
    count, device = ("1", []) if torch.cuda.is_available() else ("2", ["--use_cpu", "True"])  # to try it on a CPU
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", count, "--rdzv_backend", "c10d"]
    launcher += ["--rdzv_endpoint", "127.0.0.1:0", __file__, "--child"]
    done = subprocess.run([*launcher, *FLAGS, *device, *words], env=os.environ, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-6000:])


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return 0
    from safetensors.torch import load_file

    from vsehub import D2SVSEModel
    from vsehub.demos.generated_scenes import write_dataset, write_towers

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_dataset(root / "data", 64, 16, 16)
        vision, text = write_towers(root)
        common = ["--data", str(root / "data"), "--vision", vision, "--text", text]
        whole, parts, again = (str(root / name) for name in ("whole", "parts", "again"))
        run(*common, "--output_dir", whole)
        run(*common, "--output_dir", parts, "--fsdp")
        run(*common, "--output_dir", again, "--fsdp", "--max_steps", "2")
        resume = f"{again}/baseline/checkpoint-2"
        run(*common, "--output_dir", again, "--fsdp", "--resume_from_checkpoint", resume)
        weights = [load_file(f"{out}/hub/model.safetensors") for out in (whole, parts, again)]
        errors = [difference(weights[0], other) for other in weights[1:]]
        moved = difference(weights[0], load_file(f"{whole}/baseline/checkpoint-2/model.safetensors"))
        _, info = D2SVSEModel.from_pretrained(f"{parts}/hub", output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        print(f"{name}: steps 3 and 4 move a weight by up to {moved:.1e}; with shards, the last weights differ from")
        print(f"those without by {errors[0]:.1e}, when gone on with from step 2 by {errors[1]:.1e}")
    return 0


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest one of two models' weights."""
    floats = [name for name, value in first.items() if value.is_floating_point()]
    return max(float((first[name] - second[name]).abs().max()) for name in floats)


if __name__ == "__main__":
    raise SystemExit(main())
