"""`torch.compile(fullgraph=True)`: no graph break in either path, the same numbers."""

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from vsehub.modeling.pooling import GPO

SETTINGS = [pytest.param(name, marks=pytest.mark.slow) for name in ("d2s, legacy", "pir, soft belief", "pir, legacy")]


@pytest.fixture(params=["d2s", "pir", *SETTINGS])
def model(request, make_tiny_model, make_tiny_pir_model):
    """Each model, and each setting that computes otherwise."""
    name, _, setting = request.param.partition(", ")
    changes = {"legacy": {"legacy": True}, "soft belief": {"belief": "soft"}}.get(setting, {})
    return {"d2s": make_tiny_model, "pir": make_tiny_pir_model}[name](**changes)


@pytest.mark.slow
@torch.no_grad()
def test_both_paths_compile_into_one_graph_each(model, tiny_image_batch, tiny_text_batch):
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="inductor")
    for inputs in (tiny_image_batch, tiny_text_batch, {**tiny_image_batch, **tiny_text_batch}):
        found, expected = compiled(**inputs), model(**inputs)
        for name in ("image_embeds", "text_embeds"):
            if expected.get(name) is not None:
                assert (found[name] - expected[name]).abs().max() <= 1e-5


@torch.no_grad()
def test_no_graph_break(model, tiny_image_batch, tiny_text_batch):
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")  # traces as inductor does, compiles nothing
    for inputs in (tiny_image_batch, tiny_text_batch):
        found, expected = compiled(**inputs), model(**inputs)
        for name in ("image_embeds", "text_embeds"):
            if expected.get(name) is not None:
                assert (found[name] - expected[name]).abs().max() <= 1e-5


@pytest.mark.slow
def test_gradients_of_the_compiled_model_are_those_of_the_model(make_tiny_model, tiny_image_batch, tiny_text_batch):
    torch._dynamo.reset()
    model, inputs = make_tiny_model(), {**tiny_image_batch, **tiny_text_batch}
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = []
    for network in (model, compiled):
        model.zero_grad()
        network(**inputs, return_loss=True).loss.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and any("gru" in name for name in found[0])
    assert all((found[0][name] - found[1][name]).abs().max() <= 1e-5 for name in found[0])


def test_the_backward_pass_of_a_large_set_compiles_as_that_of_a_small_one():
    """A recurrence that is unrolled takes minutes to compile for the 197 tokens of a picture."""
    sizes = []

    def counted(graph, inputs):
        sizes.append(len(graph.graph.nodes))
        return make_boxed_func(graph)

    for tokens in (6, 30):
        torch._dynamo.reset()
        torch.manual_seed(0)
        pool, features = GPO(8, 0.1), torch.randn(2, tokens, 4)
        expected = torch.autograd.grad(pool(features).square().sum(), list(pool.parameters()))
        compiled = torch.compile(pool, fullgraph=True, backend=aot_autograd(fw_compiler=counted, bw_compiler=counted))
        found = torch.autograd.grad(compiled(features).square().sum(), list(pool.parameters()))
        for gradient, reference in zip(found, expected):
            torch.testing.assert_close(gradient, reference)
    assert len(sizes) == 4 and sizes[:2] == sizes[2:]
