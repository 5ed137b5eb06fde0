"""Briefs: what people hand in, in every format, and everything that can be wrong with it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.brief import load_brief
from pipeline.errors import Fault, InputError, SetupError
from pipeline.models import Model
from pipeline.resolve import resolve_requests

MODEL = Model(
    "starter", "text-to-image", "/nowhere", "r1", "Apache-2.0", None, "", 128, 96, 12, 3.0, "", True
)
TEMPLATE = "a {{ colour }} {{ object }}"


def requests_of(path: Path, template: str | None = TEMPLATE):
    brief = load_brief(path, template)
    return list(resolve_requests(brief, lambda name, *kinds: MODEL, None).requests)


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
        ("a.yaml", "- {sku: A, sku: B}\n", ["line 1", "'sku' is written twice"]),
        ("a.yaml", "items: []\nterms:\n  expires: 2027-02-30\n", ["line 3", "out of range"]),
        ("a.yaml", "items:\n" + "- " * 3000, ["line 2", "nests too deep"]),
        ("a.yaml", "[" * 3000, ["line 1", "nests too deep"]),
        ("a.yaml", "items: []\na: !!int x\nb: !!bool x\n", ["line 2", "line 3"]),
        ("a.yaml", "items: []\nclient: a\x07\n", ["line 2", "U+0007"]),
        ("a.yaml", 'items: []\ntemplate: "\\ud800"\n', ["line 2", "U+D800"]),
        ("a.yaml", 'items: []\ncampaign: "\\0"\n', ["line 2", "U+0000"]),
        ("a.yaml", "", ["the file is empty"]),
        ("a.yaml", "items: []\nsterngth: 0.5\nconstraints: 4\n", ["'sterngth'", "'constraints'"]),
        ("a.yaml", "items: []\ncount: yes\n", ["count", "should be a number"]),
        ("a.jsonl", '{"sku": "A", "count": true}', ["column count", "should be a number"]),
        ("a.jsonl", '{"sku": ["A"]}', ["line 1, column sku", "a list is no text"]),
        ("a.jsonl", '{"sku": "\\ud800"}', ["line 1, column sku", "not printable"]),
        ("a.jsonl", '{"sku": "A", "negative_prompt": "\\u0007"}', ["negative_prompt", "U+0007"]),
        ("a.jsonl", '{"sku": "A", "prompt": "\\udcff"}', ["column prompt", "U+DCFF"]),
        ("a.jsonl", '{"sku": "A", "prompt": false}', ["column prompt", "is no text"]),
        ("a.jsonl", '{"sku": "A", "colour": NaN}', ["line 1", "NaN is no JSON number"]),
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
        ("{{ range }}", "column 'range' is not in the items"),
        ("{{ dict(a=1) }}", "column 'dict' is not in the items"),
        ("{{ colour|random }}", "No filter named 'random'"),
        ("{{ 10 ** 100000000 }}", "a power is too large"),
        ("{{ 'x' * 1000000000 }}", "too large"),
        ("{{ 'x'|center(1000000000) }}", "too large"),
        ("{{ [1]|batch(1000000000, 'x')|list }}", "too large"),
        ("{{ '%1000000000d' % 1 }}", "formats no text"),
        ("{{ '{:1000000000}'.format(1) }}", "plain methods"),
        ("{% set x = colour %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}", "more than 16000"),
        ("{% set x = colour %}" + "{% set x = x + x %}" * 60 + "{{ x }}", "more than 16000"),
        ("{% set x = [colour, colour] %}{{ x }}", "set makes a list"),
        ("{% set x %}{{ colour }}{% endset %}{{ x }}", "not allowed"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "`macro` is not allowed"),
        ("{% for a in colour %}{% for b in colour %}x{% endfor %}{% endfor %}", "loop within"),
        ("{% include 'x' %}", "`include` is not allowed"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "cannot be compiled"),
        ("{{ " + "9" * 5000 + " }}", "cannot be compiled"),
        ("{{ colour.upper }}", "is no text"),
        ("{{ colour.upper|string }}", "a method is no value"),
        ("{{ colour|map('upper') }}", "a list is no text"),
        ("{{ {}[colour] }}", "line 2: template"),
        ("x" * 30_000, "30000 characters"),
        ("\ud800", "template: holds the character U+D800"),
    ],
)
def test_templates_cannot_reach_out_or_run_away(tmp_path: Path, template: str, said: str) -> None:
    message = faults_of(tmp_path, "a.csv", "sku,colour,object\nS1,red,mug\n", template)
    assert said in message


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("a {{ colour.upper() ~ '-' ~ object|title }}", "a RED-Mug"),
        ("{% for t in colour.split('e') if t %}{{ loop.index }}{{ t }} {% endfor %}", "1r 2d"),
        ("{% set c = colour|upper %}{{ c }} {{ {'mug': 'cup'}[object] }}", "RED cup"),
        ("{{ colour|map('upper')|join }} {{ 2 ** 8 * 4096 }} {{ 7 % 4 }}", "RED 1048576 3"),
    ],
)
def test_templates_compute_what_prompts_need(tmp_path: Path, template: str, prompt: str) -> None:
    (tmp_path / "a.csv").write_text("sku,colour,object\nS1,red,mug\n")
    assert requests_of(tmp_path / "a.csv", template)[0].prompt == prompt


@pytest.mark.parametrize("row", ["{}", '{"colour": null}', '{"colour": ""}', '{"colour": " "}'])
@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("a {{ colour }} mug", None),
        ("a {{ colour|upper }} mug", None),
        ("a {{ colour ~ ' mug' }}", None),
        ("a {% if colour %}{{ colour }} {% endif %}mug", "a mug"),
        ("a {{ colour or 'grey' }} mug", "a grey mug"),
        ("a {{ colour|default('grey') }} mug", "a grey mug"),
        ("a {{ 'bright' if colour == 'red' else 'plain' }} mug", "a plain mug"),
        ("a {{ 'bright' if 'red' in colour else 'plain' }} mug", "a plain mug"),
    ],
)
def test_an_empty_cell_is_a_fault_unless_tested(
    tmp_path: Path, row: str, template: str, prompt: str | None
) -> None:
    lines = [{"sku": "S1"} | json.loads(row), {"sku": "S2", "colour": "red"}]
    text = "\n".join(map(json.dumps, lines))
    if prompt is None:
        message = faults_of(tmp_path, "a.jsonl", text, template)
        assert "a.jsonl, line 1: template: column 'colour' is empty" in message
        assert "line 2" not in message
    else:
        (tmp_path / "a.jsonl").write_text(text)
        assert requests_of(tmp_path / "a.jsonl", template)[0].prompt == prompt


@pytest.mark.parametrize("cell", ["true", "[1]", "{}"])
def test_cells_that_are_no_text_are_faults_where_the_template_uses_them(
    tmp_path: Path, cell: str
) -> None:
    text = f'{{"sku": "S1", "colour": {cell}, "object": "mug"}}'
    assert "line 1, column colour" in faults_of(tmp_path, "a.jsonl", text)
    assert requests_of(tmp_path / "a.jsonl", "a {{ object }}")[0].prompt == "a mug"


def test_cells_print_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"sku": 1.10, "colour": 1e3, "object": 12345678901234567890, "guidance": 2.50}\n'
    )
    (tmp_path / "a.yaml").write_text(
        "template: '{{ colour }} {{ object }}'\nsteps: 3\nitems:\n"
        "- {sku: 12:30, colour: no, object: 2027-02-30, count: 2}\n- {sku: 0010, colour: ~}\n"
    )
    (first,) = requests_of(tmp_path / "a.jsonl")
    assert (first.sku, first.prompt) == ("1.10", "a 1e3 12345678901234567890")
    assert first.guidance == 2.5
    message = faults_of(tmp_path, "a.yaml", (tmp_path / "a.yaml").read_bytes(), None)
    assert "item 2: template: column 'colour' is empty" in message
    first, second, other = requests_of(tmp_path / "a.yaml", "{{ colour or object or 'x' }}")
    assert (first.sku, first.prompt, first.steps, second.index) == ("12:30", "no", 3, 1)
    assert (other.sku, other.prompt) == ("0010", "x")


def test_merged_mappings_stay_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "- &a {sku: A, colour: red, object: mug}\n- {<<: *a, sku: B}\n"
    )
    assert [each.sku for each in requests_of(tmp_path / "a.yaml")] == ["A", "B"]
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    assert "merges too many keys" in faults_of(tmp_path, "b.yaml", "\n".join(lines))


def test_undeclared_models_are_told_for_every_row_with_all_other_faults(tmp_path: Path) -> None:
    def find(name: str, *kinds: str) -> Model:
        if name == "gone":
            raise SetupError("the folder is absent")
        if name != "starter":
            raise InputError("models", [Fault(f"no model {name!r}", "", "declared: starter")])
        return MODEL

    def told(rows: str, kind: type[Exception]) -> str:
        (tmp_path / "a.csv").write_text(f"sku,colour,model\n{rows}")
        with pytest.raises(kind) as caught:
            resolve_requests(load_brief(tmp_path / "a.csv", "{{ colour }}"), find, None)
        return str(caught.value)

    message = told("A,red,x\nB,red,\nC,red,y\nD,red,x\nE,,gone\n", InputError)
    for part in (
        "line 2, column model: no model 'x'",
        "line 4, column model: no model 'y'",
        "line 5, column model: no model 'x'",
        "line 6: template: column 'colour'",
    ):
        assert part in message
    assert len(message.splitlines()) == 5
    assert "absent" in told("A,red,gone\n", SetupError)


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
