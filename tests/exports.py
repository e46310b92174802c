"""Holds the exports of a data set to their formats with the formats' own tools, and reads the data set from the
Croissant file alone: `exports.py DIR`, where DIR holds what `ofs export M all` wrote."""

import hashlib
import itertools
import json
import sys
import typing
from importlib.metadata import version
from pathlib import Path

import attr
import duckdb
import mlcroissant
import pandas
import pyarrow.parquet
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from openlineage.client import event_v2, facet_v2

folder = Path(sys.argv[1])


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def croissant():
    """Validates with mlcroissant and reads with it, DuckDB and pandas; every number must agree."""
    path = folder / "croissant.json"
    loaded = mlcroissant.Dataset(jsonld=str(path))
    issues = loaded.metadata.ctx.issues
    assert not issues.errors, issues.report()
    assert not issues.warnings, issues.report()
    document = json.loads(path.read_text())
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    files = [path.parent / f["contentUrl"] for f in document["distribution"]]
    for file, entry in zip(files, document["distribution"]):
        assert sha256(file) == entry["sha256"], file
    frame = pandas.concat([pandas.read_parquet(file) for file in files], ignore_index=True)
    names = [str(file) for file in files]
    columns = duckdb.sql(f"describe select * from read_parquet({names})").fetchall()
    types = {"cr:Int64": "BIGINT", "cr:Int32": "INTEGER", "cr:Float64": "DOUBLE", "sc:Boolean": "BOOLEAN", "sc:Text": "VARCHAR"}
    types |= {"sc:DateTime": "TIMESTAMP WITH TIME ZONE", "sc:Float": "DECIMAL"}
    for records in document["recordSet"]:
        told = [(f["source"]["extract"]["column"], types[f["dataType"]]) for f in records["field"]]
        assert len(told) == len(columns) == len(frame.columns)
        for (name, kind), (found, is_kind, *_) in zip(told, columns):
            assert name == found and is_kind.startswith(kind), (name, kind, found, is_kind)
    counted = duckdb.sql(f"select count(*), count(distinct row_id) from read_parquet({names})").fetchall()[0]
    assert counted == (len(frame), frame["row_id"].nunique()) and len(frame) > 0
    begin = read = 0
    for file, records in zip(files, document["recordSet"]):
        # It reads record by record in Python, so of large files only the first are read.
        for at, record in enumerate(itertools.islice(loaded.records(records["@id"]), 1000)):
            row = frame.iloc[begin + at]
            for name, value in record.items():
                name = name.split("/", 1)[1]
                value = value.decode() if isinstance(value, bytes) else value
                same = pandas.isna(row[name]) if value is None else value == row[name]
                assert same, (name, value, row[name])
            read += 1
        begin += pyarrow.parquet.read_metadata(file).num_rows
    assert begin == len(frame) and read > 0
    tool = version("mlcroissant")
    print(f"croissant: mlcroissant {tool} has no error and no warning; {begin} rows in {len(files)} file(s) for DuckDB and pandas, {read} of them read by mlcroissant and equal")


def fits(value, hint, where):
    """Whether a JSON value is of a type of the client's own classes, which are made from the OpenLineage schemas."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if value is None:
        assert type(None) in inside, f"{where} may not be null"
    elif type(None) in inside:
        fits(value, next(h for h in inside if h is not type(None)), where)
    elif origin is list:
        assert isinstance(value, list), where
        for at, item in enumerate(value):
            fits(item, inside[0], f"{where}[{at}]")
    elif origin is dict:
        assert isinstance(value, dict), where
        for key, item in value.items():
            fits(item, inside[1], f"{where}.{key}")
    elif attr.has(hint):
        structure(hint, value, where)
    elif isinstance(hint, type) and hint in (str, int, bool, float):
        assert isinstance(value, hint) and (hint is not int or not isinstance(value, bool)), (where, value, hint)


def structure(kind, value, where):
    """Makes an object of the class, so that its validators run, with no field unknown and none of another type."""
    base = {"_producer", "_schemaURL"}
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in attr.fields(kind)}
    for name, item in value.items():
        assert name in known, f"{where}: {kind.__name__} has no {name}"
        fits(item, hints[name], f"{where}.{name}")
    kind(**{known[name].alias: item for name, item in value.items() if known[name].init and name not in base})
    return kind


FACETS = {
    "nominalTime": facet_v2.nominal_time_run.NominalTimeRunFacet,
    "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
    "jobType": facet_v2.job_type_job.JobTypeJobFacet,
    "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
    "schema": facet_v2.schema_dataset.SchemaDatasetFacet,
    "dataSource": facet_v2.datasource_dataset.DatasourceDatasetFacet,
    "columnLineage": facet_v2.column_lineage_dataset.ColumnLineageDatasetFacet,
    "inputStatistics": facet_v2.input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
    "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
}


def facets(owner, key, where):
    """Every standard facet against its class and the schema that the class names; our own need the base fields."""
    found = owner.pop(key, {})
    for name, value in found.items():
        assert value["_producer"] and value["_schemaURL"], f"{where}.{name}"
        if not name.startswith("ofs_"):
            kind = structure(FACETS[name], value, f"{where}.{name}")
            assert value["_schemaURL"].rsplit("/", 1)[1] == kind._get_schema().rsplit("/", 1)[1], (name, kind._get_schema())
    return len(found)


def openlineage():
    """START and COMPLETE of one run, each strictly a RunEvent of the client's classes."""
    events = [json.loads(line) for line in (folder / "openlineage.jsonl").read_text().splitlines()]
    assert [e["eventType"] for e in events] == ["START", "COMPLETE"]
    assert len({e["run"]["runId"] for e in events}) == 1
    count = 0
    for event in events:
        where = event["eventType"]
        assert event["schemaURL"] == event_v2.RunEvent._get_schema()
        count += facets(event["run"], "facets", f"{where}.run") + facets(event["job"], "facets", f"{where}.job")
        for side, own in [("inputs", "inputFacets"), ("outputs", "outputFacets")]:
            for dataset in event[side]:
                at = f"{where}.{dataset['name']}"
                count += facets(dataset, "facets", at) + facets(dataset, own, at)
        event_v2.RunState(event["eventType"])
        kind = event_v2.RunEvent
        run, job = event_v2.Run(**event["run"]), event_v2.Job(**event["job"])
        inputs = [event_v2.InputDataset(**d) for d in event["inputs"]]
        outputs = [event_v2.OutputDataset(**d) for d in event["outputs"]]
        kind(eventTime=event["eventTime"], producer=event["producer"], run=run, job=job, inputs=inputs, outputs=outputs)
        assert set(event) == {f.name for f in attr.fields(kind)}, set(event)
    inputs, outputs = len(events[1]["inputs"]), len(events[1]["outputs"])
    print(f"openlineage: 2 run events, {inputs} inputs, {outputs} output, {count} facets fit the client's classes")


def intoto():
    """A valid Statement whose predicate is SLSA provenance, and whose subjects are the files as they lie there."""
    text = (folder / "provenance.intoto.json").read_text()
    statement = json_format.Parse(text, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    document = json.loads(text)
    assert document["predicateType"] == "https://slsa.dev/provenance/v1"
    provenance = json_format.ParseDict(document["predicate"], Provenance())
    assert provenance.build_definition.build_type and provenance.run_details.builder.id
    assert len(provenance.build_definition.resolved_dependencies) > 2
    croissant = json.loads((folder / "croissant.json").read_text())
    store = (folder / croissant["distribution"][0]["contentUrl"]).resolve()
    part = next(s["name"] for s in document["subject"] if s["annotations"]["role"] == "rows")
    root = Path(str(store).removesuffix(part))
    roles = set()
    for subject in document["subject"]:
        assert sha256(root / subject["name"]) == subject["digest"]["sha256"], subject["name"]
        roles.add(subject["annotations"]["role"])
    assert roles == {"manifest", "index", "evidence", "rows"}
    print(f"in-toto: a valid Statement v1 with SLSA provenance v1; {len(document['subject'])} subjects are the files by digest")


croissant()
openlineage()
intoto()
sheet = (folder / "DATASHEET.md").read_text()
for part in ["## Basis", "## Labels", "## Drops", "## Columns", "## Intended use and limits", "## Files"]:
    assert part in sheet, part
print(f"datasheet: {len(sheet.splitlines())} lines")
