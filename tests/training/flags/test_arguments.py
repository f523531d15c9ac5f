"""The arguments: what they hand to the configuration, and when the structure needs its teachers."""

import inspect

import pytest

from vsehub import D2SVSEConfig, PIRConfig
from vsehub.training.flags.arguments import D2SModelArguments, PIRModelArguments, StructureArguments


@pytest.mark.parametrize(("arguments", "config"), [(D2SModelArguments, D2SVSEConfig), (PIRModelArguments, PIRConfig)])
def test_every_number_is_a_field_of_the_configuration(arguments, config):
    known = set(inspect.signature(config.__init__).parameters)
    for base in config.__mro__:
        if base.__name__ == "DualEncoderConfig":
            known |= set(inspect.signature(base.__init__).parameters)
    numbers = arguments(projection_dim=24, image_size=48).numbers()
    assert set(numbers) <= known
    assert numbers["projection_dim"] == 24 and numbers["image_size"] == 48


@pytest.mark.parametrize("arguments", [D2SModelArguments, PIRModelArguments])
def test_sources_of_weights_are_no_numbers(arguments):
    numbers = arguments().numbers()
    assert not {"vision", "text", "freeze_vision", "lora", *arguments.sources} & set(numbers)


@pytest.mark.parametrize("name", ["structure_weight", "representation_image_weight", "representation_text_weight"])
def test_any_weight_of_the_structure_needs_teachers(name):
    assert not StructureArguments().needs_teachers
    assert StructureArguments(**{name: 0.5}).needs_teachers
