"""`vsehub info`: what an issue report needs."""

import platform

import torch

import vsehub as package


def test_versions_and_devices_are_told(vsehub, vsehub_json):
    facts = vsehub_json("info")
    assert facts["vsehub"] == package.__version__ and facts["Python"] == platform.python_version()
    assert facts["torch"].split("+")[0] == torch.__version__.split("+")[0] and facts["GPU"]
    said = vsehub("info")
    assert all(f"{value}" in said for value in facts.values())
