"""recover and serve-bindings as people and other programs use them: files, pipes, real HTTP."""

from __future__ import annotations

import base64
import http.client
import io
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from c2pa import Reader
from typer.testing import CliRunner, Result

sys.path.append(str(Path(__file__).parents[1] / "catalog"))
from recovery_samples import shoot_marked, stripped, unmarked

from catalog.lake import reading
from catalog.recover import labels_in, manifest_store
from pipeline.errors import InputError
from pipeline.settings import Settings
from platemark.bindings_service import server
from platemark.recover_commands import register


@dataclass(frozen=True)
class Shop:
    settings: Settings
    made: list[tuple[str, bytes]]

    def call(self, *arguments: str) -> Result:
        app = typer.Typer()
        register(app)
        place = ["--workspace", str(self.settings.root)]
        return CliRunner().invoke(app, [*arguments, *place])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    settings = Settings(workspace=tmp_path_factory.mktemp("shop") / "workspace")
    return Shop(settings, shoot_marked(settings, range(3)))


def test_a_stripped_picture_gets_its_record_and_a_sidecar(shop: Shop, tmp_path: Path) -> None:
    request_id, data = shop.made[1]
    found, sidecar = tmp_path / "found.jpg", tmp_path / "found.c2pa"
    found.write_bytes(stripped(data))
    result = shop.call("recover", str(found), "--sidecar", str(sidecar))
    assert result.exit_code == 0, result.output
    assert "watermark  MUG-00001  near certain" in result.output
    assert request_id in result.output
    assert "recovered, not bit-identical" in result.output
    # Another reader: the stored manifest is whole, and says that the pixels are others.
    reader = Reader("image/jpeg", io.BytesIO(found.read_bytes()), sidecar.read_bytes())
    store = json.loads(reader.json())
    assert store["active_manifest"] == labels_in(data)[0]
    failures = store["validation_results"]["activeManifest"]["failure"]
    assert "assertion.dataHash.mismatch" in {each["code"] for each in failures}


def test_json_holds_all_that_was_found(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(stripped(shop.made[2][1]))
    result = shop.call("recover", str(tmp_path / "a.jpg"), "--json")
    told = json.loads(result.stdout)
    assert told["matches"][0]["record"]["sku"] == "MUG-00002"
    assert told["not_indexed"] == 0
    assert shop.made[2][0].startswith(told["watermark"])


def test_a_picture_that_is_not_ours_exits_1_and_writes_nothing(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(unmarked(77))
    result = shop.call("recover", str(tmp_path / "b.jpg"), "--sidecar", str(tmp_path / "b.c2pa"))
    assert result.exit_code == 1
    assert "no record of this catalog looks like it" in result.output
    assert not (tmp_path / "b.c2pa").exists()


def test_what_is_only_possible_is_told_and_exits_1(shop: Shop, tmp_path: Path) -> None:
    part, sidecar = tmp_path / "part.jpg", tmp_path / "part.c2pa"
    part.write_bytes(stripped(unmarked(1), kept=0.9))
    result = shop.call("recover", str(part), "--sidecar", str(sidecar))
    assert result.exit_code == 1
    assert "fingerprint  MUG-00001  possible" in result.output
    assert "no sidecar" in result.stderr and not sidecar.exists()


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_a_file_that_is_no_picture_is_wrong_input(
    shop: Shop, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "c.jpg"
    if content is not None:
        file.write_bytes(content)
    result = shop.call("recover", str(file))
    assert isinstance(result.exception, InputError)
    assert str(file) in str(result.exception)


@pytest.fixture(scope="module")
def client(shop: Shop) -> Iterator[http.client.HTTPConnection]:
    shop.call("recover", "/nowhere")  # indexes
    with server(shop.settings.catalog, "127.0.0.1", 0) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield http.client.HTTPConnection("127.0.0.1", serving.server_address[1], timeout=60)
        finally:
            serving.shutdown()
            thread.join()


def ask(
    client: http.client.HTTPConnection,
    method: str,
    url: str,
    body: bytes | None = None,
    **headers: str,
) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    client.request(method, url, body, named)
    response = client.getresponse()
    return response.status, response.read()


def test_an_uploaded_picture_leads_to_its_manifest(
    shop: Shop, client: http.client.HTTPConnection
) -> None:
    data = shop.made[0][1]
    status, body = ask(
        client, "POST", "/matches/byContent", stripped(data), Content_Type="image/jpeg"
    )
    assert status == 200
    (match,) = json.loads(body)["matches"]
    assert match == {"manifestId": labels_in(data)[0], "similarityScore": 98}
    status, store = ask(client, "GET", f"/manifests/{match['manifestId']}")
    with reading(shop.settings.catalog) as lake:
        assert (status, store) == (200, manifest_store(lake, match["manifestId"]))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_watermark_read_elsewhere_leads_to_its_manifest(
    shop: Shop, client: http.client.HTTPConnection, method: str
) -> None:
    alg, value = "org.platemark.watermark.1", base64.b64encode(shop.made[1][0][:12].encode())
    if method == "GET":
        url = f"/matches/byBinding?alg={alg}&value={value.decode()}"
        status, body = ask(client, "GET", url)
    else:
        query = json.dumps({"alg": alg, "value": value.decode()}).encode()
        status, body = ask(client, "POST", "/matches/byBinding", query)
    assert status == 200
    assert json.loads(body)["matches"][0]["manifestId"] == labels_in(shop.made[1][1])[0]


def test_it_says_what_it_supports(client: http.client.HTTPConnection) -> None:
    status, body = ask(client, "GET", "/services/supportedAlgorithms")
    told = json.loads(body)
    assert status == 200
    assert told["watermarks"] == [
        {"alg": "org.platemark.watermark.1"},
        {"alg": "com.adobe.trustmark.Q"},
    ]
    assert told["fingerprints"] == [{"alg": "org.platemark.pdq.1"}, {"alg": "io.iscc.v0"}]


@pytest.mark.parametrize(
    ("method", "url", "body", "headers", "status"),
    [
        ("GET", "/", None, {}, 404),
        ("GET", "/manifests/urn:c2pa:unknown", None, {}, 404),
        ("GET", "/manifests/../../etc/passwd", None, {}, 404),
        ("GET", "/manifests/%2e%2e%2fcatalog.sqlite", None, {}, 404),
        ("GET", "/manifests/x?returnActiveManifest=true", None, {}, 400),
        ("GET", "/matches/byBinding?alg=other&value=YQ==", None, {}, 400),
        ("GET", "/matches/byBinding?alg=org.platemark.pdq.1&value=%25", None, {}, 400),
        ("GET", "/matches/byBinding?alg=org.platemark.pdq.1&value=YQ==", None, {}, 400),
        ("GET", f"/matches/byBinding?value={'a' * 5000}", None, {}, 414),
        ("POST", "/matches/byBinding", b"[", {}, 400),
        ("POST", "/matches/byBinding", b"[]", {}, 400),
        ("POST", "/matches/byContent", b"no picture", {"Content_Type": "image/png"}, 415),
        ("POST", "/matches/byContent", b"%PDF", {"Content_Type": "application/pdf"}, 415),
        ("POST", "/matches/byContent?maxResults=0", b"", {"Content_Type": "image/png"}, 400),
        (
            "POST",
            "/matches/byContent",
            b"",
            {"Content_Type": "image/png", "Content_Length": str(2**40)},
            413,
        ),
    ],
)
def test_what_it_refuses(
    client: http.client.HTTPConnection,
    method: str,
    url: str,
    body: bytes | None,
    headers: dict[str, str],
    status: int,
) -> None:
    found, told = ask(client, method, url, body, **headers)
    assert found == status
    assert json.loads(told)["error"]
