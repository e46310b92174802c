"""The job of a bare engine beside that of `ofs`: the same rows out of the same files, nothing proved.

duckdb|polars WORKSPACE OUT   the job, in a process of its own
check A B              two results cell by cell
pairs WORKSPACE OFS K  the jobs in turn, K times: medians of CPU, wall and peak memory, and their ratios
"""
import json, os, pathlib, shutil, statistics, subprocess, sys, time

WINDOWS = {"1h": 3_600, "24h": 86_400, "7d": 604_800}
TIES = 1_024  # places of one key and instant, at most
THREADS = os.environ.get("COMPARE_THREADS", str(os.cpu_count()))


def paths(workspace):
    root = pathlib.Path(workspace)
    intent = json.loads((root / "intents/train.json").read_text())
    run = intent["platform_run_id"]
    sealed = root / "store" / run / "ofs/sealed"
    events = str(sealed / "**/segment-*.parquet")
    return root, intent, run, events, str(root / "labels/*.parquet")


def run_polars(workspace, out):
    os.environ["POLARS_MAX_THREADS"] = THREADS
    import polars as pl
    _, intent, run, events, labels = paths(workspace)
    asof = pl.lit(intent["label_basis"]["label_asof_utc"]).str.to_datetime("%+", time_zone="UTC", time_unit="us")
    rows = (
        pl.scan_parquet(events, glob=True, hive_partitioning=True)
        .select("event_id", "ts_utc", "partition", "offset", pl.col("payload_flow_id").alias("flow_id"), pl.col("payload_amount").alias("amount"))
        .sort("partition", "offset").unique("event_id", keep="first", maintain_order=True)
        .filter(pl.col("flow_id").is_not_null())
        .sort("flow_id", "ts_utc", "partition", "offset").with_row_index("at")
    )
    begins = (pl.col("flow_id") != pl.col("flow_id").shift()).fill_null(True) | (pl.col("ts_utc") != pl.col("ts_utc").shift()).fill_null(True)
    first = pl.when(begins).then(pl.col("at")).otherwise(None).forward_fill()
    place = pl.col("ts_utc").dt.epoch("us") * TIES + (pl.col("at") - first).cast(pl.Int64)
    rows = rows.with_columns(place.alias("place")).collect()
    for name, seconds in WINDOWS.items():
        window = rows.select("flow_id", "place", "amount").rolling("place", period=f"{seconds * 1_000_000 * TIES}i", closed="right", group_by="flow_id").agg(
            pl.len().cast(pl.Int64).alias(f"events_{name}"), pl.col("amount").sum().alias(f"amount_sum_{name}"),
            pl.col("amount").mean().alias(f"amount_mean_{name}"), pl.col("amount").max().alias(f"amount_max_{name}"))
        # A sum of nothing is null here, as in SQL.
        total = pl.when(pl.col(f"amount_max_{name}").is_not_null()).then(pl.col(f"amount_sum_{name}"))
        rows = rows.hstack(window.drop("flow_id", "place").with_columns(total.alias(f"amount_sum_{name}")))
    known = (
        pl.scan_parquet(labels)
        .filter((pl.col("platform_run_id") == run) & pl.col("label_type").is_in(intent["filters"]["label_types"]) & (pl.col("observed_time") <= asof))
        .select("event_id", "label_value", "observed_time", "label_assertion_id")
    )
    top = known.group_by("event_id").agg(pl.col("observed_time").max())
    chosen = known.join(top, on=["event_id", "observed_time"]).group_by("event_id").agg(
        pl.col("observed_time").first().alias("observed"), pl.col("label_value").min().alias("low"), pl.col("label_value").max().alias("high"),
        pl.col("label_assertion_id").max().alias("assertion"))
    (
        rows.lazy().join(chosen, on="event_id", how="left").sort("ts_utc", "partition", "offset")
        .select(
            "event_id", "ts_utc", "partition", "offset", pl.col("flow_id").alias("key"),
            *[f"{f}_{w}" for f in ("events", "amount_sum", "amount_mean", "amount_max") for w in WINDOWS],
            pl.when(pl.col("low") == pl.col("high")).then(pl.col("low")).alias("label"),
            pl.when(pl.col("low").is_null()).then(pl.lit("NOT_FOUND")).when(pl.col("low") == pl.col("high")).then(pl.lit("RESOLVED")).otherwise(pl.lit("CONFLICT")).alias("status"),
            "observed", pl.when(pl.col("low") == pl.col("high")).then(pl.col("assertion")).alias("assertion"))
        .collect().write_parquet(out, compression="zstd", compression_level=1)
    )


def run_duckdb(workspace, out):
    import duckdb
    root, intent, run, events, labels = paths(workspace)
    db = duckdb.connect(config={"threads": THREADS})
    db.execute("SET TimeZone='UTC'")
    types = ", ".join(f"'{t}'" for t in intent["filters"]["label_types"])
    frames = ", ".join(f"w{n} AS (PARTITION BY flow_id ORDER BY place RANGE BETWEEN {s * 1_000_000 * TIES - 1} PRECEDING AND CURRENT ROW)" for n, s in WINDOWS.items())
    columns = ", ".join(f"{agg} OVER w{n} AS {name}_{n}" for name, agg in
                        [("events", "count(*)"), ("amount_sum", "sum(amount)"), ("amount_mean", "avg(amount)"), ("amount_max", "max(amount)")] for n in WINDOWS)
    db.execute(f"""COPY (
        WITH rows AS (
            SELECT event_id, ts_utc, partition, "offset", payload_flow_id AS flow_id, payload_amount AS amount
            FROM read_parquet('{events}', hive_partitioning=true) WHERE payload_flow_id IS NOT NULL
            QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY partition, "offset") = 1),
        placed AS (SELECT *, epoch_us(ts_utc) * {TIES} + row_number() OVER (PARTITION BY flow_id, ts_utc ORDER BY partition, "offset") AS place FROM rows),
        features AS (SELECT event_id, ts_utc, partition, "offset", flow_id AS key, {columns} FROM placed WINDOW {frames}),
        known AS (SELECT event_id, label_value, observed_time, label_assertion_id FROM read_parquet('{labels}')
            WHERE platform_run_id = '{run}' AND label_type IN ({types}) AND observed_time <= TIMESTAMPTZ '{intent["label_basis"]["label_asof_utc"]}'),
        top AS (SELECT event_id, max(observed_time) AS observed FROM known GROUP BY event_id),
        chosen AS (SELECT k.event_id, any_value(observed) AS observed, min(label_value) AS low, max(label_value) AS high, max(label_assertion_id) AS assertion
            FROM known k JOIN top t ON k.event_id = t.event_id AND k.observed_time = t.observed GROUP BY k.event_id)
        SELECT f.*, CASE WHEN low = high THEN low END AS label,
            CASE WHEN low IS NULL THEN 'NOT_FOUND' WHEN low = high THEN 'RESOLVED' ELSE 'CONFLICT' END AS status,
            observed, CASE WHEN low = high THEN assertion END AS assertion
        FROM features f LEFT JOIN chosen c ON f.event_id = c.event_id ORDER BY ts_utc, partition, "offset"
        ) TO '{out}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)""")


def check(ours, theirs):
    """Every cell of the data set, except what only `ofs` has (row ids, hashes, the lane's constant columns)."""
    import polars as pl
    a = pl.scan_parquet(ours).sort("ts_utc", "partition", "offset").collect()
    b = pl.read_parquet(theirs).sort("ts_utc", "partition", "offset")
    label = next(c for c in a.columns if c.startswith("label_") and c.endswith("_status"))[: -len("_status")]
    names = {label: "label", f"{label}_status": "status", f"{label}_observed_utc": "observed", f"{label}_assertion_id": "assertion"}
    shared = [c for c in b.columns if c not in names.values()]
    a = a.rename(names).select(*shared, *names.values())
    assert a.height == b.height, f"{a.height} rows, {b.height} rows"
    for name in a.columns:
        x, y = a[name], b[name].cast(a[name].dtype)
        differ = x.ne_missing(y)
        if name.startswith("amount_mean"):  # a mean of theirs may be off in the last bit
            differ = differ & ((x - y).abs() > x.abs() * 1e-12)
        assert not differ.any(), f"{name}: {differ.sum()} cell(s) differ, the first in row {differ.arg_max()}: {x[differ.arg_max()]} and {y[differ.arg_max()]}"
    print(f"{a.height} rows x {len(a.columns)} columns agree")


def measured(command, env=None):
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **(env or {})})
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{command} ended with {status}"
    return {"cpu": usage.ru_utime + usage.ru_stime, "wall": time.monotonic() - begun, "peak": usage.ru_maxrss / 1024}


def fresh(workspace):
    root, _, run, *_ = paths(workspace)
    shutil.rmtree(root / "state", ignore_errors=True)
    for at in (root / "store" / run / "ofs").glob("*"):
        if at.name != "sealed":
            shutil.rmtree(at)


def pairs(workspace, ofs, k):
    root, intent, run, *_ = paths(workspace)
    env = {"OFS_LIMITS_THREADS": THREADS}
    jobs = {
        "ofs": lambda: (fresh(workspace), measured([ofs, "--workspace", str(root), "run", str(root / "intents/train.json")], env))[1],
        "polars": lambda: measured([sys.executable, __file__, "polars", workspace, str(root / "polars.parquet")]),
        "duckdb": lambda: measured([sys.executable, __file__, "duckdb", workspace, str(root / "duckdb.parquet")]),
    }
    jobs = {name: job for name, job in jobs.items() if name in os.environ.get("COMPARE_JOBS", "ofs polars duckdb")}
    runs = [{name: job() for name, job in jobs.items()} for _ in range(k)]
    ours = next((root / "store" / run / "ofs/datasets").glob("*"))
    for name in jobs:
        if name != "ofs":
            check(str(ours / "*.parquet"), str(root / f"{name}.parquet"))
    for what, unit in (("cpu", "s"), ("wall", "s"), ("peak", "MiB")):
        values = {name: statistics.median(r[name][what] for r in runs) for name in jobs}
        ratios = {name: statistics.median(r["ofs"][what] / r[name][what] for r in runs) for name in jobs if name != "ofs"}
        print(f"{what:5}" + "".join(f"{name} {value:9.2f} {unit}   " for name, value in values.items()) + "".join(f"ofs/{name} {ratio:.2f}   " for name, ratio in ratios.items()))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["polars", workspace, out]: run_polars(workspace, out)
        case ["duckdb", workspace, out]: run_duckdb(workspace, out)
        case ["check", ours, theirs]: check(ours, theirs)
        case ["pairs", workspace, ofs, k]: pairs(workspace, ofs, int(k))
        case _: sys.exit(__doc__)
