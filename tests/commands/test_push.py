"""`vsehub push`: what reaches `push`, and the address that is printed."""


def test_flags_reach_the_library_and_the_address_is_printed(vsehub, vsehub_json, calls):
    made = calls("vsehub.hub_cards.push.push", "https://hub/commit/1")
    words = ("push", "runs/hub", "org/name", "--tag", "v1", "--message", "first", "--private")
    assert vsehub(*words) == "https://hub/commit/1\n"
    assert vsehub_json("push", "--repo", "org/name", "runs/hub") == {
        "repo": "org/name",
        "commit": "https://hub/commit/1",
    }
    assert made == [
        (("runs/hub", "org/name", True, "v1", "first"), {}),
        (("runs/hub", "org/name", False, None, None), {}),
    ]


def test_a_folder_that_is_no_model_is_refused_before_the_hub_is_asked(vsehub, tmp_path):
    assert "holds no saved model" in vsehub("push", tmp_path, "org/name", status=2)
    assert "REPO is missing" in vsehub("push", tmp_path, status=2)


def test_a_dry_run_lists_files_and_sends_nothing(vsehub, vsehub_json, calls, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    made = calls("vsehub.hub_cards.push.push", "sent")
    calls("vsehub.hub_cards.push.shipped_files", [("config.json", tmp_path / "config.json")])
    assert "2  bytes in 1 files; nothing was sent" in vsehub("push", tmp_path, "org/name", "--dry-run")
    assert vsehub_json("push", tmp_path, "org/name", "--dry_run")["files"] == {"config.json": 2}
    for words, said in ((("a/b/c",), "no name of a repository"), (("org/name", "--tag", "a b"), "no name of a tag")):
        assert said in vsehub("push", tmp_path, *words, "--dry_run", status=2)
    assert made == []
