"""Pictures to dense captions by a vision-language model of transformers; `server_captioner.py` asks a server instead.

A captioner says who it is (`identity`, cheap: no weights are loaded) and turns an iterable of (image id, picture) into
groups of outcomes (`captions`). The job that calls it decides what is remembered, see `caption_job.py`.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from ...files.text import printable
from .answers import UnusableAnswerError, caption_in, has_reasoning, opens_reasoning
from .request import Caption, CaptionError, CaptionRequest, Failure, fitted

PLAIN_SIDE = 224  # pixels of the plain test picture, which separates a broken model from a broken picture


class TransformersCaptioner:
    """Any image-text-to-text model of transformers that answers its prompt (LLaVA, Qwen-VL, Gemma 3, ...).

    A processor without a chat template is asked `USER: <image>\\n{prompt} ASSISTANT:` (LLaVA's), with its own image
    token. Sampling is seeded by seed and image ids, batch by batch: a resumed job draws what an unbroken one draws.
    """

    backend = "transformers"

    def __init__(self, model_id, request=None, revision=None, batch_size=8, dtype="auto", device="auto"):
        self.model_id, self.request, self.revision = model_id, request or CaptionRequest(), revision
        self.batch_size, self.dtype, self.device = batch_size, dtype, device
        self.model = self.processor = self.prompt = self.options = None
        self.works = False  # whether it answered once

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
        self.revision = getattr(config, "_commit_hash", None) or self.revision  # load the weights of the same commit
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
        self.processor.tokenizer.padding_side = "left"  # generated tokens must follow the prompt, not padding
        if self.processor.tokenizer.pad_token is None:
            self.processor.tokenizer.pad_token = self.processor.tokenizer.eos_token
        self.prompt, self.options = self._rendered()

    def _rendered(self):
        """Return the prompt as the model reads it, and options for the processor."""
        processor, prompt = self.processor, self.request.prompt
        if processor.chat_template is None:
            return f"USER: {getattr(processor, 'image_token', None) or '<image>'}\n{prompt} ASSISTANT:", {}
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        known = {"enable_thinking": False} if "enable_thinking" in str(processor.chat_template) else {}
        try:
            text = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, **known
            )
        except Exception as error:  # templates raise many types of errors
            what = printable(f"its chat template refuses a picture with a question ({type(error).__name__}: {error})")
            raise CaptionError(f"model {self.model_id}: {what}") from None
        twice = processor.tokenizer.bos_token and text.startswith(processor.tokenizer.bos_token)
        return text, {"add_special_tokens": False} if twice else {}

    def captions(self, items: Iterable) -> Iterator[list]:
        """Yield the outcomes of one batch after another, in order."""
        revision = self.identity()["revision"]
        self.load()
        items = iter(items)
        while batch := list(itertools.islice(items, self.batch_size)):
            yield self._outcomes(batch, revision)

    def _outcomes(self, batch, revision):
        try:
            outcomes = [self._judged(item[0], revision, *answer) for item, answer in zip(batch, self._generate(batch))]
            unusable = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Failure)]
            if unusable and self.request.temperature > 0:  # once more, with other random numbers
                for i, answer in zip(unusable, self._generate([batch[i] for i in unusable], attempt=1)):
                    outcomes[i] = self._judged(batch[i][0], revision, *answer)
            return outcomes
        except NoAnswerError as error:  # one odd picture (a pixel wide, say) fails its whole batch: find out which
            if len(batch) > 1:
                return [outcome for item in batch for outcome in self._outcomes([item], revision)]
            self._refuse_broken_model()
            return [Failure(batch[0][0], f"{batch[0][0]}: {error}")]

    def _judged(self, image_id, revision, answer, truncated, num_tokens):
        request, in_reasoning = self.request, opens_reasoning(self.prompt)
        limits = (request.min_words, request.max_new_tokens)
        try:
            caption = caption_in(answer, request.prompt, *limits, truncated, in_reasoning)
        except UnusableAnswerError as error:
            return Failure(image_id, f"{image_id}: no caption from the model: {error}")
        return Caption(image_id, caption, truncated, num_tokens, revision)

    def _refuse_broken_model(self):
        """Raise CaptionError if the model never answered and fails on a plain picture as well."""
        from PIL import Image

        if not self.works:
            try:
                self._generate([("", Image.new("RGB", (PLAIN_SIDE, PLAIN_SIDE), (128, 128, 128)))])
            except NoAnswerError as error:
                raise CaptionError(f"model {self.model_id} fails on a plain picture as well: {error}") from None

    def _inputs(self, batch):
        images = [[fitted(image, self.request.max_image_side)] for _, image in batch]
        texts = [self.prompt] * len(batch)
        try:
            inputs = self.processor(images=images, text=texts, padding=True, return_tensors="pt", **self.options)
        except Exception as error:  # each processor raises other types
            raise NoAnswerError(printable(f"the processor refuses it ({type(error).__name__}: {error})")) from None
        return inputs.to(self.model.device, self.model.dtype)

    def _generate(self, batch, attempt=0):
        """Return (answer, truncated, num_tokens) for each (image id, picture)."""
        import torch

        inputs, request, tokenizer = self._inputs(batch), self.request, self.processor.tokenizer
        options: dict[str, Any] = {"do_sample": False}
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
            smaller = f"--batch_size {len(batch) // 2}" if len(batch) > 1 else "a lower --max_image_side"
            raise CaptionError(f"out of memory with {len(batch)} images at once: pass {smaller}") from None
        except Exception as error:  # too many image tokens for its positions, say; every model has its own
            raise NoAnswerError(printable(f"the model fails on it ({type(error).__name__}: {error})")) from None
        length = inputs["input_ids"].shape[1]
        if not torch.equal(tokens[:, :length], inputs["input_ids"]):
            raise CaptionError(
                f"{self.model_id} does not repeat its prompt before the answer: this model cannot caption here"
            )
        self.works = True
        return [self._decoded(row) for row in tokens[:, length:]]

    def _decoded(self, row):
        import torch

        ends = self.model.generation_config.eos_token_id
        end = torch.isin(row, torch.tensor([-1] if ends is None else ends, device=row.device)).nonzero()
        row = row[: int(end[0])] if len(end) else row
        answer = self.processor.tokenizer.decode(row, skip_special_tokens=False)
        if not has_reasoning(answer):  # whose markers may be special tokens: dropped, they would leave a caption
            answer = self.processor.tokenizer.decode(row, skip_special_tokens=True)
        return answer, not len(end), len(row)


class NoAnswerError(ValueError):
    """Pictures on which the processor or the model fails."""


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


__all__ = ["TransformersCaptioner"]
