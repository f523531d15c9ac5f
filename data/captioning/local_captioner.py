"""Pictures to dense captions by a vision-language model of transformers; `caption_server.py` asks a server instead.

A captioner says who it is (`identity`, cheap: no weights are loaded) and turns an iterable of (image id, picture) into
groups of outcomes (`captions`). The job that calls it decides what is remembered, see `dense_captions.py`.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass


class CaptionError(RuntimeError):
    """A job that cannot go on; the message says why and what to do. What is written is kept."""


@dataclass(frozen=True)
class CaptionRequest:
    """What is asked of the model; the defaults are D2S-VSE's (arXiv 2503.14953): LLaVA, one caption an image.

    Args:
        prompt: the question.
        temperature: 0 means greedy.
        top_p: nucleus, in (0, 1].
        max_new_tokens: longer answers are cut and flagged `truncated`.
        seed: None means 0 for a local model, and that a server is sent none.
    """

    prompt: str = "Describe this image in detail"
    temperature: float = 0.2
    top_p: float = 0.9
    max_new_tokens: int = 500
    seed: int | None = None

    def __post_init__(self):
        if not self.prompt.strip() or self.prompt.encode("utf-8", "ignore").decode() != self.prompt:
            raise CaptionError("the prompt is empty or not UTF-8: give --prompt a question")
        if not 0 <= self.temperature <= 10:
            raise CaptionError(f"temperature {self.temperature} is not in [0, 10]; 0.2 is the paper's")
        if not 0 < self.top_p <= 1:
            raise CaptionError(f"top_p {self.top_p} is not in (0, 1]; 0.9 is the paper's")
        if self.max_new_tokens < 1:
            raise CaptionError(f"max_new_tokens {self.max_new_tokens} is not positive; 500 is the paper's")

    @property
    def prompt_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of prompt and sampling; the seed, a draw of the same, is left out."""
        asked = {**asdict(self), "temperature": float(self.temperature), "top_p": float(self.top_p)}
        del asked["seed"]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Caption:
    """An answer. `num_tokens` is None where a server does not count; `revision` is what answered."""

    image_id: str
    dense_text: str
    truncated: bool
    num_tokens: int | None
    revision: str


@dataclass(frozen=True)
class Failure:
    """An image without a usable answer."""

    image_id: str
    reason: str


class TransformersCaptioner:
    """Any image-text-to-text model of transformers that answers its prompt (LLaVA, Qwen-VL, Gemma 3, ...).

    A processor without a chat template is asked `USER: <image>\\n{prompt} ASSISTANT:` (LLaVA's), with its own image
    token. Sampling is seeded by seed and image ids, batch by batch: a resumed job draws what an unbroken one draws.
    """

    backend = "transformers"

    def __init__(self, model_id, request=None, revision=None, batch_size=8, dtype="auto", device="auto"):
        self.model_id, self.request, self.revision = model_id, request or CaptionRequest(), revision
        self.batch_size, self.dtype, self.device = batch_size, dtype, device
        self.model = self.processor = None

    def identity(self) -> dict:
        """Return `model_id` and its exact `revision`: the commit of a Hub repository, the fingerprint of a folder."""
        from transformers import AutoConfig

        if os.path.isdir(self.model_id):
            if self.revision:
                raise CaptionError(f"{self.model_id} is a folder, it has no revisions: leave --revision out")
            return {"model_id": self.model_id, "revision": folder_revision(self.model_id)}
        try:
            config = AutoConfig.from_pretrained(self.model_id, revision=self.revision, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise CaptionError(f"model {self.model_id}: {error}") from None
        self.revision = getattr(config, "_commit_hash", None) or self.revision  # weights of the very same commit
        return {"model_id": self.model_id, "revision": self.revision or "unknown"}

    def load(self):
        """Load the processor, then the weights to the device."""
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        where = {"pretrained_model_name_or_path": self.model_id, "trust_remote_code": False}
        if self.revision:
            where["revision"] = self.revision
        try:
            self.processor = AutoProcessor.from_pretrained(**where)
            self.model = AutoModelForImageTextToText.from_pretrained(**where, dtype=self.dtype).to(device).eval()
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, AssertionError) as error:
            raise CaptionError(f"model {self.model_id} does not load as image-text-to-text: {error}") from None
        if not hasattr(self.processor, "tokenizer"):
            raise CaptionError(f"model {self.model_id} has no processor of images and text")
        self.processor.tokenizer.padding_side = "left"  # what is generated follows the prompt, not its padding
        if self.processor.tokenizer.pad_token is None:
            self.processor.tokenizer.pad_token = self.processor.tokenizer.eos_token

    def captions(self, items: Iterable) -> Iterator[list]:
        """Yield the outcomes of one batch after another, in order."""
        revision = self.identity()["revision"]
        self.load()
        items = iter(items)
        while batch := list(itertools.islice(items, self.batch_size)):
            yield self._outcomes(batch, revision)

    def _outcomes(self, batch, revision):
        try:
            answers = self._generate(batch)
            empty = [i for i, (text, *_) in enumerate(answers) if not text]
            if empty:  # once more, with other draws
                again = self._generate([batch[i] for i in empty], attempt=1)
                answers = [again[empty.index(i)] if i in empty else answer for i, answer in enumerate(answers)]
        except BadInputsError as error:  # one odd picture (a pixel wide, say) fails its whole batch: find out which
            if len(batch) == 1:
                return [Failure(batch[0][0], f"{batch[0][0]}: the processor refuses it ({error})")]
            return [outcome for item in batch for outcome in self._outcomes([item], revision)]
        return [
            Caption(image_id, text, *rest, revision) if text else Failure(image_id, f"{image_id}: empty answer, twice")
            for (image_id, _), (text, *rest) in zip(batch, answers)
        ]

    def _inputs(self, batch):
        processor, prompt, options = self.processor, self.request.prompt, {}
        if processor.chat_template is not None:
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            if processor.tokenizer.bos_token and text.startswith(processor.tokenizer.bos_token):
                options["add_special_tokens"] = False  # or there would be two
        else:
            text = f"USER: {getattr(processor, 'image_token', None) or '<image>'}\n{prompt} ASSISTANT:"
        images = [[image] for _, image in batch]
        try:
            inputs = processor(images=images, text=[text] * len(batch), padding=True, return_tensors="pt", **options)
        except Exception as error:  # every processor has its own
            raise BadInputsError(f"{type(error).__name__}: {error}") from None
        return inputs.to(self.model.device, self.model.dtype)

    def _generate(self, batch, attempt=0):
        """Return (text, truncated, num_tokens) for each (image id, picture)."""
        import torch

        inputs, request, tokenizer = self._inputs(batch), self.request, self.processor.tokenizer
        options = {"do_sample": False}
        if request.temperature > 0:  # top_k: transformers would quietly keep the 50 likeliest tokens only
            options = {"do_sample": True, "temperature": request.temperature, "top_p": request.top_p, "top_k": 0}
        options.update(max_new_tokens=request.max_new_tokens, num_beams=1, pad_token_id=tokenizer.pad_token_id)
        key = json.dumps([request.seed or 0, attempt, [image_id for image_id, _ in batch]])
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        try:
            with torch.inference_mode(), torch.random.fork_rng(devices=devices):
                torch.manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:15], 16))
                tokens = self.model.generate(**inputs, **options)
        except torch.OutOfMemoryError:
            half = max(1, len(batch) // 2)
            raise CaptionError(f"out of memory with {len(batch)} images at once: pass --batch_size {half}") from None
        length = inputs["input_ids"].shape[1]
        if not torch.equal(tokens[:, :length], inputs["input_ids"]):
            raise CaptionError(f"{self.model_id} does not repeat its prompt before the answer: not a model for this")
        ends = self.model.generation_config.eos_token_id
        ends = torch.tensor([-1] if ends is None else ends, device=tokens.device)
        answers = []
        for row in tokens[:, length:]:
            end = torch.isin(row, ends).nonzero()
            row = row[: int(end[0])] if len(end) else row
            text = tokenizer.decode(row, skip_special_tokens=True).strip()
            answers.append((text, not len(end), len(row)))
        return answers


class BadInputsError(ValueError):
    """Pictures that a processor does not take."""


def folder_revision(folder) -> str:
    """Fingerprint a model folder: names, sizes, first and last 64 KB of its files (all of a 26 GB model is minutes)."""
    digest = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.startswith(".") or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            size = os.path.getsize(path)
            digest.update(f"{name} {size} ".encode("utf-8", "backslashreplace") + file.read(1 << 16))
            file.seek(max(0, size - (1 << 16)))
            digest.update(file.read())
    return f"local-{digest.hexdigest()[:12]}"


__all__ = ["Caption", "CaptionError", "CaptionRequest", "Failure", "TransformersCaptioner"]
