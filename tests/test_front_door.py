"""`import vsehub` costs nothing; a class that is asked for, by whatever door, is registered and self-contained."""

import json
import os
import subprocess
import sys

import pytest

import vsehub

REGISTERED = """
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from vsehub.configuration.configuration_d2s_vse import D2SVSEConfig
from vsehub.configuration.configuration_pir import PIRConfig
for config in (D2SVSEConfig, PIRConfig):
    assert type(AutoConfig.for_model(config.model_type)) is config
    model, processor = AutoModel._model_mapping[config], PROCESSOR_MAPPING[config]
    for owner in (model, processor):  # the originals are methods of transformers' classes
        assert owner.save_pretrained.__globals__["__name__"] == "vsehub.hub_cards.bundle", owner
"""


def run(code: str, *words: str):
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_loads_neither_torch_nor_transformers():
    loaded = run("import sys, vsehub; print(vsehub.__version__, *sys.modules)").split()
    assert loaded[0] == vsehub.__version__
    assert not {"torch", "transformers", "numpy", "datasets", "huggingface_hub"} & set(loaded)


DOORS = [
    "from vsehub import D2SVSEConfig",
    "from vsehub import Retriever",
    "import vsehub; vsehub.modeling",
    "from vsehub.modeling.modeling_pir import PIRModel",
    "from vsehub.processing.processing_d2s_vse import D2SVSEProcessor",
    "from vsehub.evaluation.evaluate import evaluation",
]
FRESH = """
import json, os, sys, traceback
import accelerate, datasets, pyarrow.parquet, torch  # once; then a process for each door
from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedModel, ProcessorMixin, Trainer
doors, check = json.loads(sys.argv[1])
for door in doors:
    child = os.fork()
    if not child:
        try:
            exec(door + check)
        except BaseException:
            print(door, flush=True)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, door
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process for each door would import torch each time")
def test_every_door_registers_all_classes_and_makes_them_self_contained():
    run(FRESH, json.dumps([DOORS, REGISTERED]))


def test_names_are_listed_and_others_are_not_there():
    assert set(vsehub.__all__) <= set(dir(vsehub))
    assert vsehub.Retriever.__name__ == "Retriever" and vsehub.search.__name__ == "vsehub.search"
    with pytest.raises(AttributeError, match="no attribute 'D2SModel'"):
        _ = vsehub.D2SModel
    with pytest.raises(ImportError, match="D2SModel"):
        from vsehub import D2SModel  # noqa: F401
