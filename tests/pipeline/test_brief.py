"""Briefs: what people hand in, in every format, and everything that can be wrong with it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.brief import load_brief
from pipeline.errors import InputError
from pipeline.models import Model
from pipeline.resolve import resolve_requests

MODEL = Model(
    "starter", "text-to-image", "/nowhere", "r1", "Apache-2.0", None, "", 128, 96, 12, 3.0, "", True
)
TEMPLATE = "a {{ colour }} {{ object }}"


def requests_of(path: Path, template: str | None = TEMPLATE):
    return resolve_requests(load_brief(path, template), lambda name: MODEL, None)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"sku,colour,object\nS1,red,mug\nS2,blue,vase\n"),
        ("bom.csv", b"\xef\xbb\xbfsku,colour,object\r\nS1,red,mug\r\nS2,blue,vase\r\n"),
        ("semicolon.csv", b"sku;colour;object\nS1;red;mug\n\nS2;blue;vase\n"),
        ("tabs.tsv", b"sku\tcolour\tobject\nS1\tred\tmug\nS2\tblue\tvase"),
        ("quoted.csv", b'sku,colour,object\n"S1","red","mug"\n"S2","blue","va\nse"\n'),
        (
            "a.jsonl",
            b'{"sku": "S1", "colour": "red", "object": "mug"}\n'
            b'\n{"sku": "S2", "colour": "blue", "object": "vase"}\n',
        ),
        (
            "a.yaml",
            b"- {sku: S1, colour: red, object: mug}\n- {sku: S2, colour: blue, object: vase}",
        ),
    ],
)
def test_every_format_gives_the_same_items(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    prompts = [request.prompt for request in requests_of(tmp_path / name)]
    assert prompts[0] == "a red mug"
    assert prompts[1] in ("a blue vase", "a blue va se")


def test_parquet_is_a_table_too(tmp_path: Path) -> None:
    table = pa.table({"sku": ["S1"], "colour": ["red"], "object": ["mug"], "count": [2]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert len(requests_of(tmp_path / "a.parquet")) == 2


def test_a_yaml_brief_sets_what_items_may_override(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(
        "sku,object,count,width,seed,negative_prompt\nS1,mug,,,,\nS2,vase,3,256,7,blurry\n"
    )
    (tmp_path / "brief.yaml").write_text(
        "template: 'a {{ object }}'\ncampaign: spring\nclient: Acme\nguidance: 2\n"
        "items: items.csv\n"
        "terms: {id: t1, licensor: Acme, expires: 2030-01-01}\n"
    )
    first, *others = requests_of(tmp_path / "brief.yaml", None)
    assert (first.prompt, first.width, first.height) == ("a mug", 128, 96)
    assert (first.campaign, first.client, first.guidance, first.steps) == ("spring", "Acme", 2, 12)
    assert first.terms["id"] == "t1"
    assert [request.seed for request in others] == [7, 8, 9]
    assert {(r.width, r.negative_prompt, r.sku) for r in others} == {(256, "blurry", "S2")}


def test_derived_seeds_follow_content_and_ids_follow_everything(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sku,colour,object,count\nS1,red,mug,2\n")
    (tmp_path / "b.csv").write_text("sku,colour,object,count\nS0,red,mug,1\nS1,red,mug,2\n")
    a, b = requests_of(tmp_path / "a.csv"), requests_of(tmp_path / "b.csv")
    assert [r.seed for r in a] == [r.seed for r in b[1:]]
    assert len({r.seed for r in (*a, b[0])}) == 3
    # Another campaign (the brief's name) makes its own images, from the same seeds.
    assert {r.request_id for r in a}.isdisjoint(r.request_id for r in b)


def faults_of(tmp_path: Path, name: str, text: str | bytes, template: str | None = TEMPLATE) -> str:
    data = text.encode() if isinstance(text, str) else text
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        requests_of(tmp_path / name, template)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", 'sku,colour,object\nS1,"red,mug\n', ["line 2", "broken CSV"]),
        ("a.csv", "sku,colour,object\nS1,red\n", ["line 2", "2 cells where the header has 3"]),
        ("a.csv", "sku,a\nS1,1\nS2,1\nS1,2\n", ["line 4", "'S1' stands already at a.csv, line 2"]),
        ("a.csv", "name,colour\nx,red\n", ["no column `sku`", "name, colour"]),
        ("a.csv", "sku,sku\nx,red\n", ["column 'sku' stands twice"]),
        ("a.csv", "", ["empty"]),
        ("a.csv", "sku,colour,object\n", ["no items"]),
        ("a.csv", b"sku,colour,object\nS1,r\xe9d,mug\n", ["line 2", "not UTF-8"]),
        ("a.csv", "sku,colour,object\nS1,r\0d,mug\n", ["line 2", "NUL"]),
        ("a.csv", "sku,colour,object,count\nS1,red,mug,0\n", ["line 2, column count"]),
        ("a.csv", "sku,colour,object,width\nS1,red,mug,100\n", ["column width", "multiple of 8"]),
        ("a.csv", "sku,colour,object,seed\nS1,red,mug,-1\n", ["column seed"]),
        ("a.csv", "sku,color,object\nS1,red,mug\n", ["'colour' is not in", "did you mean 'color'"]),
        ("a.jsonl", '{"sku": "S1"\n[1]\n', ["line 1", "broken JSON", "line 2"]),
        ("a.parquet", "PAR1", ["not readable as Parquet"]),
        ("a.yaml", "items: [\n", ["line 2", "broken YAML"]),
        ("a.yaml", "tempalte: x\nitems: []\n", ["'tempalte'", "did you mean 'template'"]),
        ("a.yaml", "items: ../other.csv\n", ["leaves the folder"]),
        ("a.yaml", "items: missing.csv\n", ["missing.csv", "No such file"]),
        ("a.yaml", "items: []\nterms: {id: x}\n", ["terms.licensor"]),
        ("a.txt", "x", ["unknown format"]),
    ],
)
def test_wrong_briefs_say_where_and_what(tmp_path: Path, name: str, text, said: list[str]) -> None:
    message = faults_of(tmp_path, name, text)
    for part in said:
        assert part in message


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    message = faults_of(tmp_path, "a.csv", "sku,count,steps\n,0,2\nA,1,x\nA,1,1\n")
    assert message.count("\n  a.csv, line") == 4


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ colour", "template, line 1"),
        ("{{ colour.__class__.__mro__ }}", "unsafe"),
        ("{% for i in range(1000000000) %}x{% endfor %}", "template"),
        ("{{ 1 // 0 }}", "template"),
        ("{{ 'x' * 5000 }}", "5000 characters"),
        (" ", "prompt is empty"),
    ],
)
def test_templates_cannot_reach_out_or_run_away(tmp_path: Path, template: str, said: str) -> None:
    message = faults_of(tmp_path, "a.csv", "sku,colour,object\nS1,red,mug\n", template)
    assert said in message


def test_without_template_the_prompt_column_is_used(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sku,prompt\nS1,a lamp\n")
    assert requests_of(tmp_path / "a.csv", None)[0].prompt == "a lamp"
    assert "no prompt and no template" in faults_of(tmp_path, "b.csv", "sku\nS1\n", None)


words = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=20, unique_by=lambda row: row[0]))
def test_any_text_survives_csv_and_jsonl_alike(tmp_path_factory, rows) -> None:
    import csv

    folder = tmp_path_factory.mktemp("brief")
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "object"])
        writer.writerows(rows)
    lines = (json.dumps({"sku": sku, "object": thing}) for sku, thing in rows)
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    template = "{{ object }}"
    from_csv = requests_of(folder / "a.csv", template)
    from_jsonl = requests_of(folder / "a.jsonl", template)
    assert [(r.sku, r.prompt) for r in from_csv] == [(r.sku, r.prompt) for r in from_jsonl]
    assert [(r.sku, r.prompt) for r in from_csv] == rows
