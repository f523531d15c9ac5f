"""Our models and processors as transformers' common suites want them described; run by `run_peer.py`, not by pytest."""

import unittest

import torch
from parameterized import parameterized
from transformers import BertConfig, BertTokenizer, ResNetConfig, ViTConfig
from transformers.testing_utils import is_flaky, require_torch, torch_device

from vsehub import D2SVSEConfig, D2SVSEModel, D2SVSEProcessor, PIRConfig, PIRModel, PIRProcessor
from vsehub.processing.processing_dual_encoder import square_image_processor

from ..test_modeling_common import (
    TEST_EAGER_MATCHES_SDPA_INFERENCE_PARAMETERIZATION,
    ModelTesterMixin,
    floats_tensor,
    ids_tensor,
    random_attention_mask,
)
from ..test_processing_common import ProcessorTesterMixin

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
VISION = ViTConfig(image_size=30, patch_size=6, **TINY)
TEXT = BertConfig(
    vocab_size=99, max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **TINY
)


class Tester:
    """What the common suite asks of a model tester."""

    is_training = True
    batch_size, seq_length = 12, 7
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4

    def __init__(self, parent, model_class):
        self.parent, self.model_class = parent, model_class

    def get_config(self):
        sizes = {"projection_dim": 16, "image_size": 30, "logit_scale": 1.0}  # tolerances are absolute
        if self.model_class is PIRModel:
            scene = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic").to_dict()
            own = {"instruction_config": scene, "filter_size": 9, "attention_heads": 2, "dropout": 0.0}
            return PIRConfig.from_vision_text_configs(VISION, TEXT, **own, **sizes)
        own = {"num_mask_tokens": 4, "decoder_layers": 1, "decoder_heads": 2, "pooling_dim": 8, "text_dropout": 0.0}
        return D2SVSEConfig.from_vision_text_configs(VISION, TEXT, size_augmentation=0.0, **own, **sizes)

    def prepare_config_and_inputs_for_common(self):
        inputs = {
            "input_ids": ids_tensor([self.batch_size, self.seq_length], TEXT.vocab_size),
            "attention_mask": random_attention_mask([self.batch_size, self.seq_length]),
            "pixel_values": floats_tensor([self.batch_size, 3, 30, 30]),
            "return_loss": True,
        }
        inputs["attention_mask"][:, 0] = 1  # a text has a token
        return self.get_config(), inputs


class Common(ModelTesterMixin):
    """Shared settings, CLIP's: a composite model without top-level attentions."""

    _is_composite = True
    test_resize_embeddings = False
    has_attentions = True
    additional_model_inputs = ["pixel_values"]

    def setUp(self):
        self.model_tester = Tester(self, self.all_model_classes[0])

    @parameterized.expand(TEST_EAGER_MATCHES_SDPA_INFERENCE_PARAMETERIZATION)
    @is_flaky(description="random weights and bfloat16: CLIP's suite tries again, too")
    def test_eager_matches_sdpa_inference(self, *case):
        getattr(super(), self._testMethodName)()

    def test_model(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = self.all_model_classes[0](config).to(torch_device).eval()
        with torch.no_grad():
            logits = model(**inputs).logits_per_image
        self.assertEqual(logits.shape, (12, 12))


@require_torch
class D2SVSEModelTest(Common, unittest.TestCase):
    all_model_classes = (D2SVSEModel,)


@require_torch
class PIRModelTest(Common, unittest.TestCase):
    all_model_classes = (PIRModel,)


class ProcessorCommon(ProcessorTesterMixin):
    """A processor of squares of 32 pixels and of words."""

    @classmethod
    def _setup_tokenizer(cls):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"lower newer wide low string input upper".split()]
        pieces = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
        vocabulary = {word: row for row, word in enumerate([*words, *pieces])}
        return BertTokenizer(vocab=vocabulary, model_max_length=64)

    @classmethod
    def _setup_image_processor(cls):
        return square_image_processor(32)


@require_torch
class D2SVSEProcessorTest(ProcessorCommon, unittest.TestCase):
    processor_class = D2SVSEProcessor


@require_torch
class PIRProcessorTest(ProcessorCommon, unittest.TestCase):
    processor_class = PIRProcessor
