"""The official layout of D2S-VSE, small."""

import json


def official(folder, ids_per_caption: bool) -> str:
    """Write two pictures with three captions each, and their dense texts; the folder."""
    folder.mkdir()
    (folder / "id_mapping.json").write_text(json.dumps({"10": "0.jpg", "11": "1.jpg"}))
    (folder / "train_caps.txt").write_text("\n".join(f"caption {i}" for i in range(6)))
    ids = ["10"] * 3 + ["11"] * 3 if ids_per_caption else ["10", "11"]
    (folder / "train_ids.txt").write_text("\n".join(ids))
    (folder / "f30k_train.jsonl").write_text("\n".join(json.dumps({"text": f"dense {i}"}) for i in range(2)))
    return str(folder)
