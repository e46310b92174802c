"""Opens a part of the demo's data set in DuckDB, Polars and pandas and holds its types: no plug-in, no cast."""

import sys

import duckdb
import pandas
import polars

path = sys.argv[1]
expected = {
    "row_id": ("VARCHAR", "String"),
    "event_id": ("VARCHAR", "String"),
    "ts_utc": ("TIMESTAMP WITH TIME ZONE", "Datetime(time_unit='us', time_zone='UTC')"),
    "topic": ("VARCHAR", "String"),
    "partition": ("INTEGER", "Int32"),
    "offset": ("BIGINT", "Int64"),
    "offset_kind": ("VARCHAR", "String"),
    "payload_hash": ("VARCHAR", "String"),
    "key": ("VARCHAR", "String"),
    "departures_24h": ("BIGINT", "Int64"),
    "delay_mean_24h": ("DOUBLE", "Float64"),
    "label_arrival_status": ("VARCHAR", "String"),
    "label_arrival_status_observed_utc": ("TIMESTAMP WITH TIME ZONE", "Datetime(time_unit='us', time_zone='UTC')"),
}
duck = {name: kind for name, kind, *_ in duckdb.sql(f"describe select * from '{path}'").fetchall()}
polar = {name: str(kind) for name, kind in polars.scan_parquet(path).collect_schema().items()}
frame = pandas.read_parquet(path)
for name, (in_duckdb, in_polars) in expected.items():
    assert duck[name] == in_duckdb, (name, duck[name])
    assert polar[name] == in_polars, (name, polar[name])
assert str(frame["ts_utc"].dtype.tz) == "UTC" and str(frame["delay_mean_24h"].dtype) == "float64"
rows = duckdb.sql(f"select count(*) from '{path}'").fetchall()[0][0]
assert rows == len(frame) == polars.read_parquet(path).height > 0
print(f"{rows} rows, {len(duck)} columns: equal in DuckDB, Polars and pandas")
