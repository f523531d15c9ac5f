"""A data set on a Hub is read as it comes."""

import io

import pytest
from datasets import Dataset
from photos import jpeg


@pytest.mark.slow
def test_parquet_of_a_hub_id_is_read_in_shares(loopback_hub_class, run_client, online_at):
    def parquet(rows):
        buffer = io.BytesIO()
        Dataset.from_list(
            [{"image": {"bytes": jpeg(row), "path": None}, "captions": f"text {row}"} for row in rows]
        ).to_parquet(buffer)
        return buffer.getvalue()

    with loopback_hub_class() as hub:
        hub.create({"name": "pairs"})
        files = hub.repositories["tester/pairs"].files()
        files["train-00000-of-00001.parquet"] = parquet(range(12))
        files["validation-00000-of-00001.parquet"] = parquet([12])
        report, _ = run_client("client_stream.py", "tester/pairs", **online_at(hub.url))
    assert report["files"] == 1 and report["evaluation"] == [["text 12"]]
    first, second = map(set, report["shares"])
    assert first | second == {f"text {row}" for row in range(12)} and len(first) == len(second) == 6
