"""An official checkpoint of PIR to a folder that `AutoModel.from_pretrained` loads.

The official file holds `{'model': state_dict, 'config': yaml}`. The converted model has `legacy=True`: it computes
what the official code computes. With the public files its pretrained weights never loaded (no key matched, and the load
was not strict), so the converter looks whether the instruction encoder and BERT still stand at their random start.
"""

import re
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers, processors
from transformers import PreTrainedTokenizerFast

from ...files.digests import file_digest
from ...files.whole import whole_folder
from ...processing.processing_dual_encoder import square_image_processor
from ..installed import PIRConfig, PIRModel, PIRProcessor
from ..model_card import write_model_card
from .official_checkpoint import (
    CheckpointError,
    WeightError,
    check_folders,
    check_image_size,
    check_options,
    count_blocks,
    infer_bert,
    infer_resnet,
    infer_vision,
    load_strictly,
    load_tokenizer,
    open_checkpoint,
    renamed,
    shape_of,
    sort_out,
    tower_config,
    translator,
    vocabulary_warnings,
)

# Official -> ours; inside the towers, names stay those of transformers 4.x. {x} is a number, {x+4} one larger by 4.
NAMES = {
    "vision_encoder.patch_embed.proj.": "vision_model.embeddings.patch_embeddings.projection.",
    "vision_encoder.patch_embed.norm.": "vision_model.embeddings.norm.",
    "vision_encoder.layers.{a}.downsample.": "vision_model.encoder.layers.{a}.downsample.",
    "vision_encoder.norm.": "vision_model.layernorm.",
    "text_encoder.": "text_model.",
    "conv_encoder.0.": "instruction_model.embedder.embedder.convolution.",
    "conv_encoder.1.": "instruction_model.embedder.embedder.normalization.",
    "vision_proj.": "vision_projection.",
    "text_proj.": "text_projection.",
    "conv_proj.": "instruction_projection.",
    "mapping_img.{a}.": "visual_instruction.maps.{a}.",
    "mapping_txt.{a}.": "language_cycles.maps.{a}.",
    "head_img.": "visual_instruction.head.",
    "head_txt.": "language_cycles.head.",
}
SWIN, OUR_SWIN = "vision_encoder.layers.{a}.blocks.{b}.", "vision_model.encoder.layers.{a}.blocks.{b}."
NAMES |= {
    SWIN + theirs: OUR_SWIN + ours
    for theirs, ours in {
        "norm1.": "layernorm_before.",
        "norm2.": "layernorm_after.",
        "attn.proj.": "attention.output.dense.",
        "attn.relative_position_bias_table": "attention.self.relative_position_bias_table",
        "attn.query.": "attention.self.query.",  # the three of attn.qkv, which is split first
        "attn.key.": "attention.self.key.",
        "attn.value.": "attention.self.value.",
        "mlp.fc1.": "intermediate.dense.",
        "mlp.fc2.": "output.dense.",
    }.items()
}
RESNET, OUR_RESNET = "conv_encoder.{s+4}.{b}.", "instruction_model.encoder.stages.{s}.layers.{b}."
NAMES |= {
    RESNET + theirs: OUR_RESNET + ours
    for theirs, ours in {
        "conv{c+1}.": "layer.{c}.convolution.",
        "bn{c+1}.": "layer.{c}.normalization.",
        "downsample.0.": "shortcut.convolution.",
        "downsample.1.": "shortcut.normalization.",
    }.items()
}
NAMES |= {
    f"{side}_{kind}.{{a}}.{theirs}": f"{owner}.layers.{{a}}.{block}.{ours}"
    for side, owner in (("img", "visual_instruction"), ("txt", "language_cycles"))
    for kind, block, attention in (("sa", "self_attention", "mhatt"), ("ca", "cross_attention", "mhatt_cross"))
    for theirs, ours in {
        f"{attention}.linear_v.": "attention.value.",
        f"{attention}.linear_k.": "attention.key.",
        f"{attention}.linear_q.": "attention.query.",
        f"{attention}.linear_merge.": "attention.merge.",
        "ffn.0.": "fc1.",
        "ffn.1.": "inner_norm.",
        "ffn.3.": "fc2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }.items()
}
UNUSED = {  # training state, and values computed from the window size
    "temp": r"temp2?$",
    "vision_encoder.*.relative_position_index": r"vision_encoder\..*\.relative_position_index$",
    "vision_encoder.*.attn_mask": r"vision_encoder\..*\.attn_mask$",
    "text_encoder.embeddings.position_ids": r"text_encoder\.embeddings\.position_ids$",
}
OF_THE_PRIOR = ("instruction_", "visual_instruction.", "language_cycles.")  # what a baseline does not use
WHOLE = ("filter_size", "head", "image_res", "embed_dim", "instru_num", "cycle_num")
OPTIONS: dict[str, Any] = {**dict.fromkeys(WHOLE, int), "is_baseline": bool, "dropout_r": (int, float)}
PUBLISHED = {"filter_size": 40, "head": 8}  # settings that no tensor tells
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def convert(
    checkpoint: str | Path,
    out: str | Path,
    *,
    vision_config: str | Path | dict | None = None,
    text_config: str | Path | dict | None = None,
    instruction_config: str | Path | dict | None = None,
    tokenizer: str | Path | None = None,
) -> dict:
    """Convert an official checkpoint. Nothing is written unless all of it converts; nothing is downloaded.

    Args:
        checkpoint: the official `checkpoint_best.pth`.
        out: folder for the model; empty or absent.
        vision_config, text_config, instruction_config: the towers' `config.json` or its content; default, what the
            tensors imply.
        tokenizer: BERT's `vocab.txt` or a folder of a tokenizer; without it no processor is written.

    Returns:
        What was decided (also stored as `conversion` in the configuration) and `warnings`.

    Raises:
        CheckpointError: a file that cannot be converted; the message names the key or the option.
    """
    check_folders(out)
    state, options = open_checkpoint(checkpoint)
    check_options(options, OPTIONS, f"{checkpoint}: config", positive=("filter_size", "head", "image_res", "embed_dim"))
    to_ours, to_theirs = translator(NAMES)
    used, dropped = sort_out(_split_qkv(state), UNUSED, lambda key: renamed(to_ours, key, "PIR"))
    if baseline := options.get("is_baseline", False):
        for name in [name for name in used if name.startswith(OF_THE_PRIOR)]:
            del used[name]
            dropped["all but the towers"] += 1

    def official_name(name):
        return re.sub(r"\.attn\.(query|key|value)\.", ".attn.qkv.", to_theirs(name) or name)

    towers = {"vision": vision_config, "text": text_config, "instruction": instruction_config}
    try:
        config = _config(used, options, towers, baseline)
    except WeightError as error:
        raise WeightError(official_name(error.name), error.fault) from None
    model = load_strictly(PIRModel, config, used, official_name, "relative_position_index")
    findings = pretrained_weights(used)
    model.config.conversion = {
        "source": Path(checkpoint).name,
        "sha256": file_digest(checkpoint),
        "tensors": len(used),
        "dropped": dict(dropped),
        "published_defaults": sorted(set(PUBLISHED) - set(options)),
        **findings,
    }
    unusual = _write(out, model, tokenizer)
    warnings = [f"{part}: {finding}" for part, finding in findings.items() if finding.startswith("never")]
    return {
        **model.config.conversion,
        "parameters": model.num_parameters(),
        "processor": tokenizer is not None,
        "warnings": warnings + unusual,
    }


def _write(out, model, tokenizer):
    """Save the model, its card and, with a tokenizer, its processor; return warnings of the tokenizer."""
    processor, warnings = None, []
    if tokenizer is not None:
        words = official_tokenizer(tokenizer, model.config.text_config)
        warnings = vocabulary_warnings(words, model.config.text_config)
        image = square_image_processor(model.config.image_size, CLIP_MEAN, CLIP_STD, resample=3)
        processor = PIRProcessor(image, words)
    facts = {"converted from": model.config.conversion["source"]}
    with whole_folder(out) as draft:
        if processor is not None:
            processor.save_pretrained(draft)
        model.save_pretrained(draft)
        write_model_card(draft, model=model, name=Path(out).resolve().name, results=[], training=facts)
    return warnings


def pretrained_weights(state) -> dict[str, str]:
    """Tell whether the pretrained instruction encoder and BERT had been loaded, from statistics of random weights."""
    origins, norm = {}, "instruction_model.embedder.embedder.normalization."
    if f"{norm}weight" in state:
        random = bool((state[f"{norm}weight"] == 1).all() and (state[f"{norm}bias"] == 0).all())
        origins["instruction_weights"] = (
            "never loaded: its frozen batch-norm still stands at 1 and 0, so it instructs with random features"
            if random
            else "loaded: its batch-norm has left 1 and 0"
        )
    spread = state["text_model.embeddings.word_embeddings.weight"].float().std().item()
    origins["text_weights"] = (
        f"never loaded: its word table has a deviation of {spread:.2f} (BERT: 0.04, random start: 1)"
        if spread > 0.5
        else f"loaded: its word table has a deviation of {spread:.2f}"
    )
    return origins


def _split_qkv(state):
    """Split the joint projection of the official Swin into query, key and value."""
    split = {}
    for key, value in state.items():
        if ".attn.qkv." in key:
            if not value.dim() or len(value) % 3:
                raise CheckpointError(f"{key} has shape {tuple(value.shape)}, not rows of query, key and value alike")
            for name, part in zip(("query", "key", "value"), value.chunk(3)):
                split[key.replace(".qkv.", f".{name}.")] = part
        else:
            split[key] = value
    return split


def _config(state, options, towers, baseline):
    """The configuration that tensors and options imply; numbers that contradict each other are an error."""
    vision, text, prior = towers.values()
    numbers = {"embed_dim": shape_of(state, "text_projection.weight", 2)[0], "instru_num": 0, "cycle_num": 0}
    if not baseline:
        numbers["instru_num"] = count_blocks(state, "visual_instruction.layers.")
        numbers["cycle_num"] = count_blocks(state, "language_cycles.layers.")
        prior = tower_config(prior) if prior else infer_resnet(state, "instruction_model.")
    for name, number in numbers.items():
        unused = baseline and name != "embed_dim"
        if not unused and options.get(name, number) != number:
            raise CheckpointError(f"config.{name} is {options[name]}, but the weights are those of {number}")
    vision = tower_config(vision) if vision else infer_vision(state, "vision_model.")
    image_size = options.get("image_res", vision.image_size)
    check_image_size(image_size, vision, "config.image_res", "the official files have 224")
    return PIRConfig(
        vision_config=vision,
        text_config=tower_config(text) if text else infer_bert(state, "text_model."),
        instruction_config=None if baseline else prior,
        projection_dim=numbers["embed_dim"],
        instruction_layers=numbers["instru_num"],
        cycles=numbers["cycle_num"],
        filter_size=options.get("filter_size", PUBLISHED["filter_size"]),
        attention_heads=options.get("head", PUBLISHED["head"]),
        dropout=float(options.get("dropout_r", 0.2)),
        image_size=image_size,
        legacy=True,
    )


def official_tokenizer(source: str | Path, text_config):
    """BERT's tokenizer with the official cleaning and without [SEP], both inside the saved tokenizer.

    Lower case; marks deleted; hyphens and slashes become spaces; `[CLS]` and pieces; 47 tokens at most. The official
    limit of 30 words cannot be said in a tokenizer (three captions of RSICD exceed it).
    """
    tokenizer = load_tokenizer(source, text_config)
    fast = tokenizer.backend_tokenizer
    steps = [normalizers.Lowercase(), normalizers.Replace(Regex(r"[,.'!?\"()*#:;~]"), "")]
    steps += [normalizers.Replace(Regex("[-/]"), " "), normalizers.Replace("<person>", "person")]
    fast.normalizer = normalizers.Sequence([*steps, fast.normalizer])
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B", special_tokens=[("[CLS]", tokenizer.cls_token_id)]
    )
    names = ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token")
    return PreTrainedTokenizerFast(  # BertTokenizer would build its own normaliser when it is loaded
        tokenizer_object=fast,
        model_max_length=min(tokenizer.model_max_length, 47),
        model_input_names=["input_ids", "attention_mask"],
        **{name: getattr(tokenizer, name) for name in names},
    )


__all__ = ["convert"]
