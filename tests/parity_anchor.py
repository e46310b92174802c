#!/usr/bin/env python3
"""What an online feature plane would hold of a workspace, computed without this project's code.

    python3 tests/parity_anchor.py fixtures/flights-day fixtures/flights-day/intents/train.json

reads archive, bus and feature authority, keeps running totals event by event, and writes the snapshot to
<store>/<run>/online_feature_plane/snapshots/<scenario run>/<snapshot hash>.json. It is the recipe of the anchor
in the fixture, and a second opinion on it: it shares nothing with the crate.
"""

import glob
import hashlib
import json
import os
import re
import sys

PINS = ["platform_run_id", "scenario_run_id", "manifest_fingerprint", "parameter_hash", "scenario_id", "seed"]
IGNORED = {"decision_response", "action_intent", "action_outcome"}


def canonical(value):
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def sha256(value):
    return hashlib.sha256(canonical(value).encode("utf-8")).hexdigest()


def delivered(workspace, run, topic, partition, kind):
    """Envelopes of one partition by offset; archive first, then what only the bus has."""
    found = {}
    folder = f"{workspace}/store/{run}/archive/events/topic={topic}/partition={partition}/offset_kind={kind}"
    for path in glob.glob(f"{folder}/*.json*"):
        for line in open(path, encoding="utf-8"):
            record = json.loads(line)
            found[int(record["origin_offset"]["offset"])] = record["envelope"]
    bus = f"{workspace}/bus/{topic}/partition={partition}"
    if os.path.exists(f"{bus}.jsonl"):
        base = json.load(open(f"{bus}.meta.json")).get("base_offset", 0)
        for at, line in enumerate(open(f"{bus}.jsonl", encoding="utf-8")):
            found.setdefault(base + at, json.loads(line)["payload"])
    return found


def seconds(token):
    number, unit = re.fullmatch(r"(\d+)([smhd])", token).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


def definition(path, name, version):
    import yaml

    authority = yaml.safe_load(open(path, encoding="utf-8"))
    groups = [
        {
            "name": group["name"],
            "version": group["version"],
            "key_type": group.get("key_type", "flow_id"),
            "windows": [
                {"window": w["window"], "duration_seconds": seconds(w["duration"]), "ttl_seconds": seconds(w["ttl"])}
                for w in group["windows"]
            ],
        }
        for group in authority["feature_groups"]
    ]
    rev = {"policy_id": authority["policy_id"], "revision": authority["revision"]}
    rev["content_digest"] = sha256({**rev, "feature_groups": groups})
    key = next(g["key_type"] for g in groups if (g["name"], g["version"]) == (name, version))
    return rev, [key, "event_id"]


class Plane:
    def __init__(self, precedence):
        self.precedence, self.places, self.seen, self.state, self.watermark = precedence, set(), {}, {}, None

    def take(self, place, envelope):
        self.watermark = max(filter(None, [self.watermark, envelope.get("ts_utc")]))
        if any(envelope.get(pin) in (None, "") for pin in PINS):
            return
        if str(envelope.get("event_type") or "").strip() in IGNORED:
            return
        payload = envelope.get("payload") or {}
        held = [(name, str(payload[name])) for name in self.precedence if payload.get(name) not in (None, "")]
        key = held[0] if held else ("event_id", envelope["event_id"])
        amount = payload.get("amount")
        try:
            amount = float(amount) if amount not in (None, "") else 0.0
        except (TypeError, ValueError):
            amount = 0.0
        if place in self.places:
            return
        self.places.add(place)
        content = sha256({k: envelope.get(k) for k in ("event_type", "schema_version", "payload")})
        event = (envelope["platform_run_id"], envelope.get("event_class") or place[0], envelope["event_id"])
        if self.seen.setdefault(event, content) != content or event in self.state.get("applied", set()):
            return
        self.state.setdefault("applied", set()).add(event)
        totals = self.state.setdefault(envelope["scenario_run_id"], {})
        total = totals.setdefault(key, {"event_count": 0, "amount_sum": 0.0, "last_event_ts_utc": ""})
        total["event_count"] += 1
        total["amount_sum"] += amount
        total["last_event_ts_utc"] = max(total["last_event_ts_utc"], envelope["ts_utc"])


def main(workspace, intent_path):
    intent = json.load(open(intent_path, encoding="utf-8"))
    run, scenario = intent["platform_run_id"], intent["scenario_run_ids"][0]
    group = intent["feature_definition_set"]
    rev, precedence = definition(f"{workspace}/authority/features_v0.yaml", group["feature_set_id"], group["feature_set_version"])
    plane, offsets, kinds, pins = Plane(precedence), [], set(), None
    for part in sorted(intent["replay_basis"], key=lambda s: (s["topic"], s["partition"])):
        topic, partition, kind = part["topic"], part["partition"], part["offset_kind"]
        start, end = int(part["start_offset"]), int(part["end_offset"])
        for offset, envelope in sorted(delivered(workspace, run, topic, partition, kind).items()):
            if start <= offset <= end:
                plane.take((topic, partition, kind, offset), envelope)
                pins = pins or {pin: envelope[pin] for pin in PINS}
        # A line file is checkpointed by the next line, a log by the last offset that was taken.
        offsets.append({"topic": topic, "partition": partition, "offset": str(end + 1 if kind == "file_line" else end)})
        kinds.add(kind)
    (kind,) = kinds
    topics = sorted({o["topic"] for o in offsets})
    basis = {"stream": topics[0] if len(topics) == 1 else "multi", "offset_kind": kind, "offsets": offsets}
    basis["basis_digest"] = sha256(basis)
    basis["window_end_utc"] = plane.watermark
    snapshot = {
        "pins": {**pins, "scenario_run_id": scenario},
        "as_of_time_utc": plane.watermark,
        "feature_groups": [{"name": group["feature_set_id"], "version": group["feature_set_version"]}],
        "feature_def_policy_rev": rev,
        "eb_offset_basis": basis,
        "graph_version": None,
        "run_config_digest": sha256({"feature_def_policy_rev": rev, "key_precedence": precedence, "amount_fields": ["amount"]}),
        "features": {f"{kind}:{key}": total for (kind, key), total in sorted(plane.state[scenario].items())},
        "freshness": {"stale_groups": [], "missing_groups": []},
    }
    snapshot["snapshot_hash"] = sha256(snapshot)
    snapshot["created_at_utc"] = plane.watermark
    folder = f"{workspace}/store/{run}/online_feature_plane/snapshots/{scenario}"
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/{snapshot['snapshot_hash']}.json"
    with open(path, "w", encoding="utf-8") as out:
        out.write(canonical(snapshot) + "\n")
    print(path, len(snapshot["features"]), "keys")


if __name__ == "__main__":
    main(*sys.argv[1:])
