"""One dry run of the towers before any data are read: it prints what they are, and refuses what cannot work."""

import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ..data.arguments import DataArguments
from ..modeling.modeling_dual_encoder import DualEncoderPreTrainedModel
from ..modeling.tower_probe import TextProbe, VisionProbe, check_vocabulary, longest_text, probe_text, probe_vision
from ..modeling.towers import load_tower
from ..processing.processing_dual_encoder import DualEncoderProcessor
from .flags.arguments import PIRModelArguments, TowerArguments
from .stage_arguments import StageArguments

CPU_RECIPES = {"d2s": "d2s_vse_flickr8k_cpu", "pir": "pir_rsicd_cpu"}
LARGE_IMAGE = 192  # pixels
LARGE_DECODER = 100  # mask tokens times layers


@dataclass(frozen=True)
class TowerReport:
    """What the towers of a run do."""

    vision: VisionProbe
    text: TextProbe

    def __str__(self) -> str:
        return f"{self.vision}; {self.text}"


def preflight(stages: dict[str, StageArguments]):
    """Check the towers of a run, all stages of which have the same, and print what they are.

    A model of stage 1 brings towers that have been trained already.

    Raises:
        ValueError, OSError: what does not fit, with the flag to change.
    """
    args = list(stages.values())[-1]
    if getattr(args.model, "stage1_model", None):
        return
    if args.stage == "prior":
        report = check_vision(args.model.instruction, args.model.image_size, "instruction")
    else:
        report = check_towers(args.model, args.data)
    if args.training.process_index == 0:
        print(report, file=sys.stderr)
        if advice := advice_for_cpu(stages):
            print(advice, file=sys.stderr)


def advice_for_cpu(stages: dict[str, StageArguments]) -> str:
    """Name the recipe for a CPU, and the flags that make the difference, where a run on one has the papers' settings.

    With them, a step takes tens of seconds: a vision tower that runs in each step, or a large decoder of mask tokens.
    """
    args = list(stages.values())[-1]
    if args.training.device.type != "cpu" or args.stage == "prior":
        return ""
    model, flags = args.model, []
    if model.image_size >= LARGE_IMAGE and not args.training.cache_vision:  # which needs frozen blocks
        flags.append("--freeze_vision True --cache_vision True")
    if args.stage == "finetune" and model.num_mask_tokens * model.decoder_layers > LARGE_DECODER:
        flags.append("--num_mask_tokens 16 --decoder_layers 2")
    if not flags:
        return ""
    name = CPU_RECIPES["pir" if isinstance(model, PIRModelArguments) else "d2s"]
    return (
        f"these settings are for a GPU: on a CPU a step can take tens of seconds. The recipe {name} is made for a CPU "
        f"(`vsehub train {name} ...`, with the same flags; `vsehub recipes` says time and result); what makes the "
        f"difference: {' '.join(flags)}"
    )


def check_vision(source: str, image_size: int, flag: str) -> VisionProbe:
    """Load a vision tower and run it once; `flag` names it in errors."""
    return probe_vision(load_tower(source, "vision_config"), image_size, f"--{flag} {source}")


def check_towers(args: TowerArguments, data: DataArguments) -> TowerReport:
    """Load the towers that the arguments name, run them once, and compare them with the tokenizer and the sizes.

    Raises:
        ValueError, OSError: what does not fit, with the flag to change.
    """
    probe = check_vision(args.vision, args.image_size, "vision")
    if isinstance(args, PIRModelArguments) and args.instruction and args.use_instruction and args.instruction_layers:
        check_vision(args.instruction, args.image_size, "instruction")
    processor = DualEncoderProcessor.from_vision_text_pretrained(
        args.vision, args.text, args.image_size, data.max_text_length, args.imagenet_normalisation
    )
    check_tokenizer(processor.tokenizer, data.text_augmentation, args.text)
    name, tokenizer = f"--text {args.text}", processor.tokenizer
    text = probe_text(load_tower(args.text, "text_config"), tokenizer.model_max_length, tokenizer.pad_token_id, name)
    check_vocabulary(tokenizer, text.vocabulary, name)
    return TowerReport(probe, text)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, text_augmentation: float, name: str):
    """Refuse word augmentation where the tokenizer does not tell which tokens make a word.

    Raises:
        ValueError: a tokenizer without word numbers or without a mask token.
    """
    if not text_augmentation:
        return
    if not tokenizer.is_fast:
        raise ValueError(
            f"--text {name}: its tokenizer, {type(tokenizer).__name__}, does not tell which tokens make a word, which "
            "text augmentation needs: set --text_augmentation 0"
        )
    if tokenizer.mask_token_id is None:
        raise ValueError(f"--text {name}: text augmentation needs a mask token: set --text_augmentation 0")


def cap_text_length(model: DualEncoderPreTrainedModel, processor: DualEncoderProcessor):
    """Lower the processor's text length to what the text tower can read: some tables show more rows than they use."""
    tokenizer = processor.tokenizer
    tokenizer.model_max_length = longest_text(model.text_model, tokenizer.model_max_length)


def freeze_without_gradient(model: DualEncoderPreTrainedModel):
    """Freeze what no token of a tower depends on: under DDP, a parameter without gradient is an error."""
    vision = probe_vision(model.vision_model, model.config.image_size)
    text = probe_text(model.text_model, 16)
    for tower, names in ((model.vision_model, vision.unused), (model.text_model, text.unused)):
        for name in names:
            tower.get_parameter(name).requires_grad_(False)


def count_cut(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], sample: int = 20_000) -> tuple[int, int]:
    """Count the texts that are longer than the tokenizer's limit.

    Args:
        tokenizer: its `model_max_length` is the limit.
        texts: any number; of more than `sample`, the first ones are looked at.

    Returns:
        How many were cut, of how many.
    """
    texts, limit = list(itertools.islice(texts, sample)), tokenizer.model_max_length
    long = [text for text in texts if len(text.encode()) + 2 > limit]  # a token has at least one byte
    lengths = [len(ids) for ids in tokenizer(long, truncation=False, verbose=False)["input_ids"]] if long else []
    return sum(length > limit for length in lengths), len(texts)


__all__ = [
    "TowerReport",
    "cap_text_length",
    "check_tokenizer",
    "check_towers",
    "count_cut",
    "freeze_without_gradient",
    "preflight",
]
