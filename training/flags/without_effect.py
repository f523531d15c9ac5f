"""Settings of a stage that another of its settings makes void: who writes one believes that it did something.

One table says which. A setting at its default is never refused, nor is one that some stage of the run uses, nor one of
a recipe that a flag of the command line makes void: `--cache_vision False` switches off what the recipe says of caches.
"""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from .limits import default_settings
from .own_arguments import (
    PIRModelArguments,
    PIRObjectiveArguments,
    RetrievalArguments,
    StructureArguments,
    TowerArguments,
)

_DECODER = {"num_mask_tokens", "decoder_layers", "decoder_heads", "token_placement", "decoder_positions"}
_DISTILLATION = {"distance", "distill_weight", "dense_teacher"}


def _names(*kinds: type) -> set[str]:
    return {item.name for kind in kinds for item in fields(kind)}


UNUSED: dict[str, set[str]] = {  # stage -> what it does not read, whatever its value
    "pretrain": _DECODER | _DISTILLATION | _names(StructureArguments),
    "finetune": {"dense_sampling"},
    "baseline": _DECODER | _DISTILLATION | {"dense_sampling", "dense_text"},
    "prior": _names(TowerArguments, PIRModelArguments, PIRObjectiveArguments)
    - {"instruction", "image_size", "freeze_vision_batch_norm"}
    | set(
        """captions_column text_augmentation max_text_length dense_text dense_sampling lr_milestones lr_decay
        tower_lr_scale objective_lr chunk_size decay_biases_and_norms cache_vision cache_text cache_views
        card_images""".split()
    ),
    "retrieval": {"dense_text", "dense_sampling"},
}


class Void(NamedTuple):
    """Settings that are void where other settings have certain values.

    Args:
        names: of the settings.
        where: name -> value of the others; True stands for every value that counts as true, False for every other.
        remedy: what to do instead of leaving it out; none: one of the two has to go.
        allowed: a value that says the same as the others do.
    """

    names: str
    where: Mapping[str, Any]
    remedy: str = ""
    allowed: Any = None


_NO_OWN_PARAMETER = dict.fromkeys(
    ("learn_text_share", "representation_image_weight", "representation_text_weight"), False
)
VOID = (
    Void("cache_views", {"cache_vision": False}, "add --cache_vision True"),
    Void("cache_views", {"image_augmentation": "none"}, "choose --image_augmentation crop"),
    Void("image_augmentation", {"cache_vision": True, "cache_views": 1}, "add --cache_views 2", allowed="none"),
    Void("text_augmentation", {"cache_text": True}, allowed=0),
    Void("freeze_vision_batch_norm", {"freeze_vision": True}),
    Void("tower_lr_scale", {"freeze_vision": True, "freeze_text": True}),
    Void("objective_lr", {"align": "hinge", **_NO_OWN_PARAMETER}, "add --align infonce"),
    Void("objective_lr", {"contrast": "triplet", "affiliation_weight": False, **_NO_OWN_PARAMETER}),
    Void("decay_biases_and_norms", {"weight_decay": False}, "set that"),
    Void("lr_decay", {"lr_milestones": False}, "set that"),
    Void("lr_scheduler_type lr_scheduler_kwargs", {"lr_milestones": True}),
    Void("warmup_steps", {"lr_scheduler_type": "constant"}, "choose constant_with_warmup", allowed=0),
    Void("eval_steps", {"eval_strategy": "epoch"}, "add --eval_strategy steps"),
    Void("save_steps", {"save_strategy": "epoch"}, "add --save_strategy steps"),
    Void("logging_steps", {"logging_strategy": "epoch"}),
    Void("hub_model_id hub_strategy hub_private_repo hub_revision", {"push_to_hub": False}, "add --push_to_hub True"),
    Void("dataloader_persistent_workers", {"dataloader_num_workers": False}, "add --dataloader_num_workers 2"),
    Void("shuffle_buffer", {"streaming": False}, "add --streaming True"),
    Void(
        "structure_bank learn_text_share structure_relation structure_centre text_share",
        {"structure_weight": False},
        "set that",
    ),
    Void("text_share", {"structure_relation": "own"}, "choose --structure_relation fused"),
    Void("margin mean_warmup_epochs", {"align": "infonce"}, "choose --align hinge"),
    Void("temperature", {"align": "hinge"}, "choose --align infonce"),
    Void("margin", {"contrast": "infonce"}, "choose --contrast triplet"),
    Void("temperature", {"contrast": "triplet"}, "choose --contrast infonce"),
    Void("affiliation_temperature", {"affiliation_weight": False}, "set that"),
    Void("distance dense_teacher", {"distill_weight": False}, "set that"),
)

CLASHES = {  # a flag that is true or false -> why it cannot stand beside --train_vision_from
    "freeze_vision": "one freezes what the other trains",
    "lora": "adapters are trained in whole towers",
}


def refuse_without_effect(stages: Mapping[str, Any], given: Collection[str], own: Mapping[str, Collection[str]]):
    """Refuse what no stage of a run uses because of its other settings, and what a stage of its own never reads.

    Args:
        stages: the arguments of each stage, by its name.
        given: names of the flags of the command line.
        own: stage -> names of the settings that are given for it alone.

    Raises:
        ValueError: with the flag, what makes it void, and the remedy.
    """
    _refuse_of_other_stages(stages, own)
    before = {stage: _defaults(args) for stage, args in stages.items()}
    read = {stage: _settings(args) | {name: before[stage][name] for name in UNUSED[stage] & before[stage].keys()}
            for stage, args in stages.items()}  # fmt: skip
    for rule in VOID:
        if not set(given).isdisjoint(rule.where):  # flags of the command line say what a recipe did not know
            names = [name for name in rule.names.split() if name in given]
        else:
            names = rule.names.split()
        for name in names:
            using = [stage for stage in stages if name in read[stage] and read[stage][name] != before[stage][name]]
            values = [read[stage][name] for stage in using]
            if using and rule.allowed not in values and all(_holds(rule, read[stage]) for stage in using):
                raise ValueError(_told(name, values[0], rule, read[using[0]]))
    for stage, settings in read.items():
        _refuse_clashes(stage, settings, given)


def _refuse_clashes(stage: str, settings: Mapping[str, Any], given: Collection[str]):
    """Refuse what contradicts `--train_vision_from`, before the data are read; no flag takes it out of a recipe."""
    block = settings["train_vision_from"]
    for name, why in CLASHES.items():
        if block is None or not settings[name]:
            continue
        flag, off = f"--{name} True", f"leave --{name} out"
        if name not in given:
            flag, off = f"{name} of the recipe", f"add --{name} False"
        tail, out = f"--train_vision_from {block}", "leave --train_vision_from out"
        if "train_vision_from" not in given:
            tail = f"train_vision_from {block} of the recipe"
            out = "take train_vision_from out of a copy of the recipe (`vsehub recipes NAME > mine.yaml`)"
        raise ValueError(f"stage {stage}: {flag} and {tail}: {why}; {off}, or {out}")


def _refuse_of_other_stages(stages: Mapping[str, Any], own: Mapping[str, Collection[str]]):
    """Refuse what was written for one stage (`--pretrain.distance l1`) which does not read it."""
    for stage, args in stages.items():
        settings, before = _settings(args), _defaults(args)
        for name in sorted(UNUSED.get(stage, set()) & set(own.get(stage, ()))):
            if name in settings and settings[name] != before[name]:
                raise ValueError(
                    f"--{stage}.{name} {_said(settings[name])} has no effect: the stage {stage} does not use it; leave "
                    "it out"
                )


def _settings(args: Any) -> dict[str, Any]:
    parts = (args.model, args.data, args.objective, args.training)
    return {item.name: getattr(part, item.name) for part in parts for item in fields(part)}


def _defaults(args: Any) -> dict[str, Any]:
    """The default of each setting of a stage."""
    found = default_settings(type(args.training))
    own = (*fields(args.model), *fields(args.data), *fields(args.objective), *fields(RetrievalArguments))
    return found | {item.name: item.default for item in own if item.default is not MISSING}


def _holds(rule: Void, settings: Mapping[str, Any]) -> bool:
    """Whether all that a rule speaks of is so."""
    if not rule.where.keys() <= settings.keys():
        return False  # a rule of the other system
    return all(_is(settings[name], value) for name, value in rule.where.items())


def _is(actual: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool):
        return bool(actual) == wanted
    return getattr(actual, "value", actual) == wanted


def _told(name: str, value: Any, rule: Void, settings: Mapping[str, Any]) -> str:
    """The error: `--cache_views 2 has no effect without --cache_vision: add --cache_vision True, or leave it out`."""
    without = [f"--{other}" for other, wanted in rule.where.items() if wanted is False and not settings[other]]
    beside = [f"--{other} {_said(settings[other])}" for other in rule.where if f"--{other}" not in without]
    why = [f"beside {' and '.join(beside)}"] * bool(beside) + [f"without {' and '.join(without)}"] * bool(without)
    alone = "leave one of the two out" if len(rule.where) == 1 else "leave it out"
    remedy = f"{rule.remedy}, or leave it out" if rule.remedy else alone
    return f"--{name} {_said(value)} has no effect {', '.join(why)}: {remedy}"


def _said(value: Any) -> str:
    value = getattr(value, "value", value)
    if isinstance(value, list):
        return " ".join(map(_said, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


__all__ = ["UNUSED", "VOID", "refuse_without_effect"]
