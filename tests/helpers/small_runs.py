"""Runs of D2S-VSE that take seconds: their flags, and what one leaves behind."""

import torch
from safetensors.torch import load_file

from vsehub.training import run_d2s

SMALL = """--image_size 32 --projection_dim 16 --num_mask_tokens 4 --decoder_layers 1 --decoder_heads 2
--size_augmentation 0 --text_dropout 0 --per_device_train_batch_size 8 --logging_steps 1 --eval_strategy steps
--save_strategy steps --eval_steps 2 --save_steps 2 --max_steps 4 --use_cpu True""".split()


def run(scenes, out, *flags):
    """Train D2S-VSE and return the published weights."""
    run_d2s.main([*scenes, *SMALL, "--output_dir", str(out), *flags])
    return load_file(out / "hub" / "model.safetensors")


def equal(first, second):
    """Whether two dictionaries of weights are bitwise equal."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
