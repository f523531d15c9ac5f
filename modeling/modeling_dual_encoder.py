"""Base class of the dual encoders: outputs, towers, `forward`, `encode_image` and `encode_text`.

A subclass sets `vision_model` and `text_model` and implements `pool_image` and `pool_text`.

Shapes: B images, T texts, N image tokens, L text tokens, C tower channels, D shared space.
"""

import contextlib
import math
import os
import stat
import threading
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoProcessor, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput, can_return_tuple, logging

from .length_groups import LengthGroups
from .tower_probe import TextProbe, VisionProbe, probe_text, probe_vision
from .towers import (
    as_tokens,
    copy_tower,
    freeze_unused,
    hold_batch_norm,
    image_tokens,
    load_tower,
    run_text_tower,
    run_vision_tower,
)

logger = logging.get_logger(__name__)

TOKENIZING = threading.Lock()  # a tokenizer holds the padding and truncation of its call: two threads would mix theirs
OF_TOWERS = ("output_attentions", "output_hidden_states")  # what a call or a tower's configuration may ask for


@dataclass
class DualEncoderOutput(ModelOutput):
    """Output of a dual encoder; every field of a modality that was not given is None.

    Args:
        loss: symmetric contrastive loss, with `return_loss=True`.
        logits_per_image: cosines times `config.logit_scale`, (B, T).
        logits_per_text: its transpose, (T, B).
        text_embeds: unit vectors (T, D).
        image_embeds: unit vectors (B, D).
        text_model_output: of `get_text_features`: the un-normalised `pooler_output` (T, D), the tower's states.
        vision_model_output: of `get_image_features`: the un-normalised `pooler_output` (B, D), the tower's states.
    """

    loss: torch.Tensor | None = None
    logits_per_image: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None

    def to_tuple(self):
        """Return the fields that are set as a tuple, nested outputs flattened to tuples."""
        return tuple(v.to_tuple() if isinstance(v, ModelOutput) else v for v in (self[k] for k in self.keys()))


class DualEncoderPreTrainedModel(PreTrainedModel):
    """Base class: initialisation, towers, forward, and encoding of captions and pictures."""

    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over pairs; Trainer must divide by the accumulation steps
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear):  # torch's own rule: a fixed std of 0.02 starves narrow heads
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load a model as transformers does, and keep its source, so that `encode_*` load the processor beside it."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.freeze_for_good()  # loading replaced the parameters that the constructor froze
        names = ("revision", "subfolder", "cache_dir", "local_files_only")
        place = pretrained_model_name_or_path
        local = isinstance(place, (str, os.PathLike)) and os.path.isdir(place)
        model._folder = os.path.abspath(place) if local else None  # another working folder must not change it
        model._origin = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
        commit = getattr(model.config, "_commit_hash", None)  # older versions; newer ones resolve the revision itself
        commit = commit or getattr(kwargs.get("revision"), "resolved", None)
        if commit is not None:
            model._origin["revision"] = commit
        return loaded

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save as transformers does; the weights get the permissions of the other files, not 0600."""
        super().save_pretrained(save_directory, *args, **kwargs)
        config = os.path.join(save_directory, "config.json")
        if os.path.isfile(config):  # the main process wrote
            for name in os.listdir(save_directory):
                if name.startswith("model") and name.endswith(".safetensors"):
                    os.chmod(os.path.join(save_directory, name), stat.S_IMODE(os.stat(config).st_mode))

    @classmethod
    def from_vision_text_pretrained(cls, vision: str, text: str, **config_kwargs):
        """Build the model around two pretrained towers (Hub ids or folders); heads are initialised at random.

        Raises:
            ValueError: a tower's checkpoint does not cover its architecture, so some weights would stay random; or the
                tower cannot be used: see `probe_vision` and `probe_text`.
        """
        vision_model = load_tower(vision, "vision_config")
        text_model = load_tower(text, "text_config")
        size = config_kwargs.get("image_size", cls.config_class().image_size)
        probes = probe_vision(vision_model, size, vision), probe_text(text_model, 64, name=text)
        config_kwargs = cls.measured(*probes) | config_kwargs
        config = cls.config_class.from_vision_text_configs(vision_model.config, text_model.config, **config_kwargs)
        model = cls(config)
        copy_tower(vision_model, model.vision_model, vision)
        copy_tower(text_model, model.text_model, text)
        return model

    @classmethod
    def measured(cls, vision: VisionProbe, text: TextProbe) -> dict:
        """Fields of the configuration that follow from what the towers did in a dry run."""
        return {"vision_width": vision.width}

    def towers(self) -> list[nn.Module]:
        """The backbones; everything else is the model's own."""
        return [self.vision_model, self.text_model]

    def freeze_for_good(self):
        """Freeze the weights that are never trained because no embedding depends on them."""
        for tower in self.towers():
            freeze_unused(tower)

    def train(self, mode: bool = True):
        """Set training mode, but keep frozen towers and the batch-norm of the vision tower in eval mode."""
        super().train(mode)
        if mode:
            for tower in self.towers():
                if not any(p.requires_grad for p in tower.parameters()):
                    tower.eval()
            if self.config.freeze_vision_batch_norm:
                hold_batch_norm(self.vision_model)
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The text tower's word embeddings."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        """Replace the text tower's word embeddings."""
        self.text_model.set_input_embeddings(value)

    def vision_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Run the vision tower alone: (B, 3, H, W) -> (B, N, C)."""
        return image_tokens(self.vision_model, pixel_values)

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.FloatTensor | None = None,
        vision_hidden_states: torch.FloatTensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **image_inputs,
    ) -> tuple | BaseModelOutputWithPooling:
        """Embed images (B, 3, H, W), or the vision tower's hidden states (B, N, C).

        Args:
            pixel_values: from the processor.
            vision_hidden_states: cached output of the vision tower, used instead of running it.
            output_attentions, output_hidden_states: passed to the vision tower.
            **image_inputs: further arguments of the subclass's `pool_image`.

        Returns:
            `pooler_output` (B, D), not normalised, and the tower's `last_hidden_state` (B, N, C) and, if requested,
            `hidden_states` and `attentions`.
        """
        flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        tower, hidden = None, vision_hidden_states
        if hidden is None:
            tower = run_vision_tower(self.vision_model, pixel_values, **flags)
            hidden = as_tokens(tower.last_hidden_state)
        return _features(hidden, self.pool_image(hidden, pixel_values, **image_inputs), tower)

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        text_hidden_states: torch.FloatTensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> tuple | BaseModelOutputWithPooling:
        """Embed captions (T, L), or the text tower's hidden states (T, L, C).

        Returns:
            `pooler_output` (T, D), not normalised, and the tower's `last_hidden_state` (T, L, C) and, if requested,
            `hidden_states` and `attentions`.
        """
        if attention_mask is None or self.reads_padding():
            given = input_ids if text_hidden_states is None else text_hidden_states
            attention_mask = torch.ones(given.shape[:2], dtype=torch.long, device=given.device)
        tower = None
        if text_hidden_states is None:
            inputs = input_ids, attention_mask, *(() if token_type_ids is None else (token_type_ids,))
            flags = dict(zip(OF_TOWERS, (output_attentions, output_hidden_states)))
            flags = {name: value for name, value in flags.items() if value is not None}
            if any(flags.values()) or any(getattr(self.text_model.config, name, False) for name in OF_TOWERS):
                tower, text_hidden_states = run_text_tower(self.text_model, *inputs, **flags)
            else:
                text_hidden_states = self.text_states(*inputs)
        return _features(text_hidden_states, self.pool_text(text_hidden_states, attention_mask), tower)

    def text_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The text tower's hidden states (T, L, C); at padding they are of no use."""
        inputs = input_ids, attention_mask, *(() if token_type_ids is None else (token_type_ids,))
        tower = self.text_model
        # Recomputed layers may run once a step (DDP); BigBird leaves its sparse attention at the first short batch.
        whole = any(getattr(module, "gradient_checkpointing", False) for module in tower.modules())
        whole = whole or getattr(tower.config, "attention_type", None) == "block_sparse"
        groups = LengthGroups(None) if whole else self.length_groups(attention_mask)
        return groups.tokens(lambda *given: run_text_tower(tower, *given)[1], *inputs)

    def length_groups(self, attention_mask: torch.Tensor) -> LengthGroups:
        """How the text side splits a training batch (T, L) on a CPU to save padding; in eval mode, not at all.

        `encode_text` sorts its texts, so training is where short and long ones meet. A GPU would wait for the lengths;
        shards (FSDP2) are gathered at every call, and processes with other groups would wait for ever.
        """
        split = self.training and attention_mask.device.type == "cpu" and not torch.compiler.is_compiling()
        whole = self.config.legacy or any(hasattr(module, "unshard") for module in self.modules())
        return LengthGroups(attention_mask if split and not whole else None)

    def reads_padding(self) -> bool:
        """Whether padding influences the embeddings of texts: only in the official code of some systems."""
        return False

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        vision_hidden_states: torch.FloatTensor | None = None,
        text_hidden_states: torch.FloatTensor | None = None,
        return_loss: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **image_inputs,
    ) -> tuple | DualEncoderOutput:
        """Embed images, texts or both.

        Args:
            input_ids, attention_mask, token_type_ids: (T, L), from the processor.
            pixel_values: (B, 3, H, W), from the processor.
            vision_hidden_states, text_hidden_states: cached last hidden states of frozen towers, (B, N, C) and
                (T, L, C), used instead of `pixel_values` and `input_ids`.
            return_loss: also return the symmetric contrastive loss; row i of the images belongs to row i of the texts.
            output_attentions, output_hidden_states: passed to the towers.
            **image_inputs: further arguments of the subclass's `get_image_features`.

        Raises:
            ValueError: neither modality is given, `return_loss` without pairs, or hidden states without the pixels that
                an instruction encoder reads.
        """
        kwargs = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        image, text = None, None
        if pixel_values is not None or vision_hidden_states is not None:
            image = self.get_image_features(
                pixel_values, vision_hidden_states=vision_hidden_states, return_dict=True, **kwargs, **image_inputs
            )
        if input_ids is not None or text_hidden_states is not None:
            text = self.get_text_features(
                input_ids,
                attention_mask=attention_mask,
                token_type_ids=token_type_ids,
                text_hidden_states=text_hidden_states,
                return_dict=True,
                **kwargs,
            )
        if image is None and text is None:
            raise ValueError("give pixel_values, input_ids, or both")
        if image is None and image_inputs:  # a mask under a misspelt name would be left out without a word
            raise TypeError(f"no text is embedded with {', '.join(sorted(image_inputs))}: see the arguments of forward")
        return self._output(image, text, return_loss)

    def _output(self, image, text, return_loss) -> DualEncoderOutput:
        image_embeds, text_embeds, logits_per_image, logits_per_text, loss = None, None, None, None, None
        if image is not None:
            image_embeds = _unit(image.pooler_output)  # (B, D)
        if text is not None:
            text_embeds = _unit(text.pooler_output)  # (T, D)
        if image is not None and text is not None:
            logits_per_text = text_embeds @ image_embeds.to(text_embeds.device).t() * self.config.logit_scale
            logits_per_image = logits_per_text.t()
        if return_loss:
            if logits_per_text is None or logits_per_text.shape[0] != logits_per_text.shape[1]:
                raise ValueError(
                    "return_loss needs as many texts as images, row i of one belonging to row i of the other"
                )
            target = torch.arange(len(logits_per_text), device=logits_per_text.device)
            loss = (F.cross_entropy(logits_per_text, target) + F.cross_entropy(logits_per_image, target)) / 2
        return DualEncoderOutput(  # at once: the order of a tuple is the order in which fields were first set
            loss=loss,
            logits_per_image=logits_per_image,
            logits_per_text=logits_per_text,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=text,
            vision_model_output=image,
        )

    def encode_text(self, texts, batch_size: int = 64, processor=None) -> torch.Tensor:
        """Embed captions: a list of N strings to unit vectors (N, D), float32 on the CPU.

        The processor is loaded from the folder of the weights unless it is passed. Texts are sorted by length to save
        padding; the results are in the order of the texts. A warning tells how many captions were longer than the
        processor reads.

        Raises:
            TypeError: something else than strings.
            ValueError: a caption that is empty or no Unicode.
        """
        texts = checked_texts(texts)
        processor = processor or self._own_processor()
        with TOKENIZING:
            warn_of_cuts(texts, processor.tokenizer, processor.tokenizer.model_max_length)

        def prepare(rows):
            with TOKENIZING:
                return processor(text=[texts[row] for row in rows], return_tensors="pt")

        return self._encode(sorted(range(len(texts)), key=lambda row: len(texts[row])), batch_size, prepare)

    def encode_image(self, images, batch_size: int = 32, processor=None) -> torch.Tensor:
        """Embed pictures: a list of N `PIL.Image.Image` to unit vectors (N, D), float32 on the CPU.

        Raises:
            TypeError: something else than PIL images. A string is never opened as a path or an address.
        """
        images = checked_images(images)
        processor = processor or self._own_processor()
        return self._encode(
            list(range(len(images))),
            batch_size,
            lambda rows: processor(images=[images[row] for row in rows], return_tensors="pt"),
        )

    @torch.no_grad()
    def _encode(self, order: list[int], batch_size: int, prepare) -> torch.Tensor:
        """Embed the items of `order` batch by batch in eval mode; row i of the result is item i."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        embeds = torch.empty(len(order), self.config.projection_dim, dtype=torch.float32, device="cpu")
        # Weights that accelerate offloaded lie on `meta`; it moves inputs to where they are computed.
        device = "cpu" if self.device.type == "meta" else self.device
        with eval_mode(self):
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                output = self(**prepare(rows).to(device))
                vectors = output.image_embeds if output.text_embeds is None else output.text_embeds
                embeds[torch.tensor(rows)] = F.normalize(vectors.float(), dim=-1).cpu()  # bfloat16 is off by 0.4 %
        return embeds

    def _own_processor(self):
        """Load, once, the processor that lies beside the weights (same folder or repository and revision)."""
        if getattr(self, "_processor", None) is None:
            if not self.config._name_or_path or not hasattr(self, "_origin"):
                raise ValueError("this model was not loaded from a folder or repository: pass processor=")
            folder = getattr(self, "_folder", None)  # not in models that an earlier version pickled
            if folder and not os.path.isdir(folder):
                raise ValueError(f"{folder}, from which this model was loaded, is gone: pass processor=")
            remote = type(self).__module__.startswith("transformers_modules")  # then its code is trusted already
            source = folder or self.config._name_or_path
            self._processor = AutoProcessor.from_pretrained(source, trust_remote_code=remote, **self._origin)
        return self._processor


@contextlib.contextmanager
def eval_mode(model: nn.Module):
    """Eval mode for a while, since dropout changes every vector; what was in eval mode before stays in it."""
    trained = [module for module in model.modules() if module.training]
    if trained:
        model.eval()
    try:
        yield
    finally:
        for module in trained:  # train() would switch all of them
            module.training = True


def checked_texts(texts, rows=None) -> list[str]:
    """The texts of `encode_text` as a list; errors count them from 0, or by `rows` where they are some of a list.

    Raises:
        TypeError: something else than strings.
        ValueError: a text that is empty or no Unicode.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    for row, text in zip(range(len(texts)) if rows is None else rows, texts):
        if not isinstance(text, str):
            raise TypeError(
                f"encode_text takes strings; item {row} is a {type(text).__name__} (use encode_image for pictures)"
            )
        if not text.strip():
            raise ValueError(f"encode_text: item {row} is empty; leave it out")
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # half of a UTF-16 pair, or an undecoded byte
            raise ValueError(f"encode_text: item {row} is not Unicode text: {text!r}")
    return texts


def checked_images(images, rows=None) -> list:
    """The pictures of `encode_image` as a list; errors count them as those of `checked_texts` do.

    Raises:
        TypeError: something else than PIL images.
    """
    images = list(images) if isinstance(images, (list, tuple)) else [images]
    for row, image in zip(range(len(images)) if rows is None else rows, images):
        if not hasattr(image, "getbands"):
            raise TypeError(
                f"encode_image takes PIL images; item {row} is a {type(image).__name__} "
                "(open files yourself with PIL.Image.open)"
            )
    return images


def warn_of_cuts(texts: list[str], tokenizer, limit: int):
    """Log how many texts have more than `limit` tokens, if any has."""
    long = [text for text in texts if len(text.encode()) + 2 > limit]  # a token has at least one byte
    lengths = [len(ids) for ids in tokenizer(long, truncation=False, verbose=False)["input_ids"]] if long else []
    cut = sum(length > limit for length in lengths)
    if cut:
        logger.warning(f"{cut} of {len(texts)} texts were cut at {limit} tokens: the rest of them was not read")


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Unit vectors; a length that is itself rounded to bfloat16 would leave them up to 0.4 % too long or short."""
    return F.normalize(vectors.float(), dim=-1).to(vectors.dtype)


def _features(hidden: torch.Tensor, pooled: torch.Tensor, tower) -> BaseModelOutputWithPooling:
    return BaseModelOutputWithPooling(
        last_hidden_state=hidden,
        pooler_output=pooled,
        hidden_states=getattr(tower, "hidden_states", None),
        attentions=getattr(tower, "attentions", None),
    )


__all__ = [
    "TOKENIZING",
    "DualEncoderOutput",
    "DualEncoderPreTrainedModel",
    "checked_images",
    "checked_texts",
    "eval_mode",
    "warn_of_cuts",
]
