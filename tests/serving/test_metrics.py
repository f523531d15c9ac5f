"""What is counted, as Prometheus reads it."""

import re

from prometheus_client.parser import text_string_to_metric_families
from served import client_of


def values(client) -> dict[tuple, float]:
    text = client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}


def test_requests_batches_and_the_index_are_counted(index_folder):
    with client_of(index_folder) as client:
        for _ in range(3):
            client.post("/search", json={"text": "a dog"})
        client.post("/search", json={"text": ""})
        client.get("/pictures/" + "0" * 16)
        client.get("/some/path")
        counted = values(client)
        assert counted["vsehub_requests_total", ("route", "/search"), ("status", "200")] == 3
        assert counted["vsehub_requests_total", ("route", "/search"), ("status", "400")] == 1
        assert counted["vsehub_requests_total", ("route", "/pictures/{id}"), ("status", "404")] == 1
        assert counted["vsehub_requests_total", ("route", "none"), ("status", "404")] == 1
        assert counted["vsehub_request_seconds_count", ("route", "/search")] == 4
        assert counted["vsehub_batch_items_sum", ("kind", "text")] == 3
        assert counted[("vsehub_index_rows",)] == 6 and counted[("vsehub_index_takeovers",)] == 0
        assert not re.search(r"0{16}|some", client.get("/metrics").text)  # a route for each id would fill the memory
