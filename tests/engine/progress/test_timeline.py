"""A timeline that Chrome's and Perfetto's viewers read."""

import json

from vitarium.engine.events import Retried, Spent
from vitarium.engine.progress.timeline import Timeline


def test_every_worker_has_a_row_and_its_writing_another(tmp_path):
    timeline = Timeline(tmp_path / "timeline.json", {"a1": "pretrain a1"})
    timeline(Spent("a1", "host 1", "train", 10.0, 12.5, 3))
    timeline(Spent("a1", "host 1", "write", 12.0, 12.25, 3))
    timeline(Spent("b2", "host 2", "score", 11.0, 11.5, 1))
    timeline(Retried("b2", "lightning"))
    timeline.write()
    events = json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
    rows = {e["args"]["name"]: e["tid"] for e in events if e["ph"] == "M"}
    assert rows == {"host 1": 1, "host 1, writing": 2, "host 2": 3}
    (train,) = [e for e in events if e.get("cat") == "train"]
    assert (train["ts"], train["dur"], train["tid"]) == (10_000_000, 2_500_000, 1)
    assert train["name"] == "train pretrain a1"
    assert train["args"] == {"model": "a1", "epoch": 3}
    (note,) = [e for e in events if e["ph"] == "i"]
    assert note["name"] == "retried b2: lightning"
    assert note["ts"] == 12_500_000
