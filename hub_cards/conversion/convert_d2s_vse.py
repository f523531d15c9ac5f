"""An official checkpoint of D2S-VSE to a folder that `AutoModel.from_pretrained` loads.

The official file pickles `{'model': state_dict, 'opt': Namespace, ...}`. Stage 1 (dense captions) has two
encoders; stage 2 adds the mask-token decoder `prompt_learner` and `long_txt_enc`, the frozen text encoder of
stage 1. The converted model has `legacy=True`: it computes what the official code computes.
"""

import re
from pathlib import Path
from typing import Any

import torch

from ...files.digests import file_digest
from ...files.whole import whole_folder
from ...processing.processing_dual_encoder import square_image_processor
from ..installed import D2SVSEConfig, D2SVSEModel, D2SVSEProcessor
from ..model_card import write_model_card
from .official_checkpoint import (
    CheckpointError,
    check_folders,
    check_image_size,
    check_options,
    count_blocks,
    infer_bert,
    infer_vision,
    load_strictly,
    load_tokenizer,
    open_checkpoint,
    shape_of,
    sort_out,
    tower_config,
    vocabulary_warnings,
)

DECODER_BLOCKS = "prompt_learner.decoder_blocks."
PREFIXES = {  # official -> ours; inside the towers, names stay those of transformers 4.x
    "img_enc.visual_encoder.": "vision_model.",
    "img_enc.image_encoder.fc.": "image_projection.",
    "img_enc.image_encoder.gpool.gru.": "image_pooling.gru.",
    "img_enc.image_encoder.gpool.linear.": "image_pooling.score.",
    "txt_enc.bert.": "text_model.",
    "txt_enc.fc.": "text_head.linear.",
    "txt_enc.mlp.layers.0.": "text_head.fc1.",
    "txt_enc.mlp.layers.1.": "text_head.fc2.",
    "txt_enc.mlp.bns.0.": "text_head.norm.",
    "txt_enc.gpool.gru.": "text_pooling.gru.",
    "txt_enc.gpool.linear.": "text_pooling.score.",
    "txt_enc.ln.": "text_norm.",
    "prompt_learner.prompt_tokens": "mask_token_decoder.mask_tokens",
    DECODER_BLOCKS: "mask_token_decoder.layers.",
    "prompt_learner.decoder_norm.": "mask_token_decoder.norm.",
}
TEACHER = "long_txt_enc."
UNUSED = {  # not used by any forward pass; the last is computed from the window size
    "img_enc.visual_encoder.pooler.*": r"img_enc\.visual_encoder\.pooler\.",
    "txt_enc.bert.pooler.*": r"txt_enc\.bert\.pooler\.",
    "txt_enc.bert.embeddings.position_ids": r"txt_enc\.bert\.embeddings\.position_ids$",
    "txt_enc.mlp.bns.1.*": r"txt_enc\.mlp\.bns\.1\.",
    "prompt_learner.mask_token": r"prompt_learner\.mask_token$",
    "img_enc.visual_encoder.*.relative_position_index": r"img_enc\.visual_encoder\..*\.relative_position_index$",
}
OPTIONS = {"decoder_heads": int, "no_res_embed": bool}  # img_res may be replaced by --image_size
NOMINAL = (
    "image size {size} is the img_res of the file's options. Released checkpoints may store the nominal 224 or "
    "384 where 384 or 480 pixels were run: if recall is low, convert again with --image_size 384 (or 480)"
)


def convert(
    checkpoint: str | Path,
    out: str | Path,
    *,
    vision_config: str | Path | dict | None = None,
    text_config: str | Path | dict | None = None,
    image_size: int | None = None,
    tokenizer: str | Path | None = None,
    teacher_out: str | Path | None = None,
) -> dict:
    """Convert an official checkpoint. Nothing is written unless all of it converts; nothing is downloaded.

    Args:
        checkpoint: the official `model_best.pth` of stage 1 or 2.
        out: folder for the model; empty or absent.
        vision_config, text_config: the towers' `config.json` or its content; default, what the tensors imply.
        image_size: side in pixels of the images that the model was run on; default `opt.img_res`.
        tokenizer: folder of a saved tokenizer, or BERT's `vocab.txt`; without it no processor is written.
        teacher_out: folder for the dense-caption text encoder of a stage-2 file, as a stage-1 model.

    Returns:
        What was decided (also stored as `conversion` in the configuration), what was written, and `warnings`.

    Raises:
        CheckpointError: a file that cannot be converted; the message names the key or the option.
    """
    _check_folders(out, teacher_out)
    state, options = open_checkpoint(checkpoint)
    check_options(options, OPTIONS, f"{checkpoint}: opt", positive=("decoder_heads",))
    size, size_from, warnings = true_image_size(image_size, options, checkpoint)
    teacher = {key: value for key, value in state.items() if key.startswith(TEACHER)}
    parts = {out: {key: value for key, value in state.items() if key not in teacher}}
    if teacher_out is not None:
        parts[teacher_out] = _teacher_alone(state, teacher, checkpoint)
    facts: dict[str, Any] = {"source": Path(checkpoint).name, "sha256": file_digest(checkpoint)}
    facts |= {"image_size": size, "image_size_from": size_from}
    towers = {"vision_config": vision_config, "text_config": text_config}
    models = {folder: _model(part, options, towers, facts, folder != out) for folder, part in parts.items()}
    if teacher and teacher_out is None:
        models[out].config.conversion["dropped"][f"{TEACHER}*"] = len(teacher)
    processor = None
    if tokenizer is not None:  # the official code uses ImageNet's mean and std for every tower
        words = load_tokenizer(tokenizer, models[out].config.text_config)
        warnings += vocabulary_warnings(words, models[out].config.text_config)
        processor = D2SVSEProcessor(square_image_processor(size), words)
    for folder in sorted(models, key=lambda folder: len(Path(folder).resolve().parts)):  # one may lie in the other
        model = models[folder]
        origin = {"converted from": f"{facts['source']}, {model.config.conversion['part']}"}
        with whole_folder(folder) as draft:
            model.save_pretrained(draft)
            if processor is not None:
                processor.save_pretrained(draft)
            write_model_card(draft, model=model, name=Path(folder).resolve().name, results=[], training=origin)
    return {
        **models[out].config.conversion,
        "parameters": models[out].num_parameters(),
        "written": [str(folder) for folder in models],
        "processor": processor is not None,
        "warnings": warnings,
    }


def _teacher_alone(state, teacher, checkpoint) -> dict[str, torch.Tensor]:
    """The teacher of a stage-2 file under the names of a stage-1 file."""
    if not teacher:
        raise CheckpointError(f"{checkpoint}: no {TEACHER}* in it; only stage-2 files have a teacher")
    as_stage_1 = {key.removeprefix("long_"): value for key, value in teacher.items()}
    return as_stage_1 | {key: value for key, value in state.items() if key.startswith("img_enc.")}


def _check_folders(out, teacher_out):
    check_folders(out, teacher_out)
    if teacher_out is not None and Path(teacher_out).resolve() == Path(out).resolve():
        raise CheckpointError(f"{out}: the model and its teacher need two folders")


def true_image_size(asked: int | None, options: dict, checkpoint) -> tuple[int, str, list[str]]:
    """Decide the side of the images in pixels, which no tensor tells: (size, its source, warnings).

    Raises:
        CheckpointError: neither the file nor the caller says it, or it is no number of pixels.
    """
    if asked is None and "img_res" not in options:
        raise CheckpointError(
            f"{checkpoint}: nothing in it tells the size of the images; pass --image_size (the paper's '224' "
            "models were run on 384 pixels, its '384' models on 480)"
        )
    size, source = (options["img_res"], "opt.img_res") if asked is None else (asked, "--image_size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise CheckpointError(f"{checkpoint}: {source} is {size!r}, not a number of pixels; pass --image_size")
    return size, source, [NOMINAL.format(size=size)] if asked is None else []


def _model(state, options, towers, facts, is_teacher):
    """Load one model; `state` has the official names, those of stage 1 for a teacher."""
    used, dropped = sort_out(state, UNUSED, our_name)
    config = _config(state, options, towers, facts["image_size"])
    model = load_strictly(
        D2SVSEModel, config, used, lambda name: official_name(name, is_teacher), computed="relative_position_index"
    )
    model.config.conversion = {
        **facts,
        "part": "teacher" if is_teacher else f"stage {2 if config.use_decoder else 1}",
        "tensors": len(used),
        "dropped": dict(dropped),
        **{f"{name}_from": "the tensors" if tower is None else "a file" for name, tower in towers.items()},
    }
    return model


def _config(state, options, towers, image_size):
    """The configuration that tensors and options imply."""
    vision, text = towers["vision_config"], towers["text_config"]
    decoder = {"use_decoder": False}
    if any(key.startswith("prompt_learner.") for key in state):
        tokens = shape_of(state, "prompt_learner.prompt_tokens", 2)
        hidden = shape_of(state, "prompt_learner.decoder_blocks.0.mlp.fc1.weight", 2)
        decoder = {
            "num_mask_tokens": tokens[0],
            "decoder_layers": count_blocks(state, DECODER_BLOCKS),
            "decoder_heads": options.get("decoder_heads", 4),  # a constant of the official code
            "decoder_mlp_ratio": hidden[0] / hidden[1],
            "residual": options.get("no_res_embed", True),  # a store_false flag: True adds
        }
    vision = tower_config(vision) if vision else infer_vision(state, "img_enc.visual_encoder.")
    check_image_size(image_size, vision, "the size of the images", "pass --image_size")
    return D2SVSEConfig(
        vision_config=vision,
        text_config=tower_config(text) if text else infer_bert(state, "txt_enc.bert."),
        projection_dim=shape_of(state, "txt_enc.fc.weight", 2)[0],
        pooling_dim=shape_of(state, "txt_enc.gpool.linear.weight", 2)[1],
        image_size=image_size,
        legacy=True,
        **decoder,
    )


def our_name(key: str) -> str:
    """Translate an official name; an unknown one is an error."""
    for theirs, ours in PREFIXES.items():
        if key.startswith(theirs):
            rest = key[len(theirs) :]
            if theirs == DECODER_BLOCKS:
                rest = re.sub(r"\.(attn|mlp)\.", ".", rest)
            return ours + rest
    raise CheckpointError(f"unknown weights, which no released D2S-VSE model has: {key}")


def official_name(name: str, is_teacher: bool = False) -> str:
    """Translate one of our names back, for errors."""
    for theirs, ours in PREFIXES.items():
        if name.startswith(ours):
            rest = name[len(ours) :]
            if theirs == DECODER_BLOCKS:
                rest = re.sub(r"\.(qkv|proj)\.", r".attn.\1.", rest)
                rest = re.sub(r"\.(fc\d)\.", r".mlp.\1.", rest)
            return ("long_" if is_teacher and theirs.startswith("txt_enc.") else "") + theirs + rest
    return name


__all__ = ["convert"]
