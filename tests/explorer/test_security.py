"""Nobody but the page's reader is answered, nothing but the page and the zoo's facts is given."""

import pytest
from starlette.testclient import TestClient

from vitarium.explorer.app import create_app
from vitarium.explorer.security import CHANGE_HEADER, MAX_BODY, Access

SECRET = "not to be read"


def test_other_hosts_names_are_refused(client):
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
        assert client.get("/api/zoo.json", headers={"host": host}).status_code == 421
    for host in ("localhost:1", "127.0.0.1:8000", "[::1]:8000"):
        assert client.get("/api/zoo.json", headers={"host": host}).status_code == 200


def test_changes_need_the_pages_token(client, kept_zoo, access):
    id = kept_zoo.ids()[0]
    for headers in ({}, {CHANGE_HEADER: "guess"}, {"cookie": f"vitarium_token={access.token}"}):
        response = client.post(f"/api/models/{id}/tag", json={"tag": "x"}, headers=headers)
        assert response.status_code == 403
    assert kept_zoo[id].tags == ()
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert client.request(method, "/api/zoo.json").status_code == 405


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_make_the_server_compute_nothing(client, kept_zoo, site):
    headers = {"sec-fetch-site": site}
    for path in ("zoo.json", "models.json", f"models/{kept_zoo.ids()[0]}/attention.json"):
        assert client.get(f"/api/{path}", headers=headers).status_code == 403
    assert client.get("/", headers=headers).status_code == 200  # a link to the page
    for ours in ("same-origin", "none"):
        assert client.get("/api/zoo.json", headers={"sec-fetch-site": ours}).status_code == 200


def test_elsewhere_than_on_loopback_everything_needs_the_token(kept_zoo):
    access = Access("0.0.0.0")
    assert not access.is_loopback
    client = TestClient(
        create_app(kept_zoo, access), base_url="http://10.0.0.7:8000", follow_redirects=False
    )
    for address in ("/", "/explorer.js", "/api/zoo.json", "/?token=guess"):
        assert client.get(address).status_code == 403
    opened = client.get(f"/?token={access.token}")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    elsewhere = client.get(f"http://10.0.0.7:8000//evil.example/?token={access.token}")
    assert elsewhere.headers["location"] == "/evil.example/"
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert client.get("/api/zoo.json").status_code == 200  # the client has the cookie now


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_is_known(host):
    assert Access(host).is_loopback


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "%2e%2e%2fsecret.txt",
        "//etc/passwd",
        "..%5csecret.txt",
        "page/%00",
        "api/models/..%2f..%2fsecret.txt",
        "models/../secret.txt",
    ],
)
def test_nothing_beside_the_page_can_be_read(client, kept_zoo, path):
    (kept_zoo.path / "secret.txt").write_text(SECRET)
    (kept_zoo.path.parent / "secret.txt").write_text(SECRET)
    response = client.get(f"/{path}")
    assert response.status_code in (400, 404)
    assert SECRET not in response.text


@pytest.mark.parametrize(
    "where",
    [
        "1 = 1); COPY models TO 'out.csv'; --",
        "id IN (SELECT * FROM read_text('/etc/passwd'))",
        "id = getenv('HOME')",
        "EXISTS (FROM 'models.csv')",
    ],
)
def test_a_condition_reads_and_writes_no_files(change, where):
    status, answer = change("/api/query", where=where)
    assert status == 400
    assert answer["error"]


def test_large_and_broken_requests_are_refused(client, access):
    headers = {CHANGE_HEADER: access.token}
    large = b'{"where": "' + b" " * MAX_BODY + b'"}'
    assert client.post("/api/query", content=large, headers=headers).status_code == 413
    pieces = (large[start : start + 1000] for start in range(0, len(large), 1000))
    assert client.post("/api/query", content=pieces, headers=headers).status_code == 413
    for body in (b"[", b"[1]", b"\xff", b"[" * 60_000, b""):
        response = client.post("/api/query", content=body, headers=headers)
        assert response.status_code in (400, 422)
        assert response.json()["error"]


def test_the_browser_is_told_to_load_nothing_from_elsewhere(client):
    for address in ("/", "/api/zoo.json", "/nothing"):
        headers = client.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy.split("; ")
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in client.get("/api/zoo.json").headers


def test_cookies_of_other_servers_on_the_same_host_are_no_hindrance(kept_zoo):
    access, other = Access("0.0.0.0"), Access("0.0.0.0")
    first, second = (
        TestClient(create_app(kept_zoo, each), base_url=f"http://10.0.0.7:{port}")
        for each, port in ((access, 8000), (other, 8001))
    )
    assert first.get(f"/?token={access.token}").status_code == 200
    second.cookies = first.cookies  # browsers have one set for all ports
    assert second.get(f"/?token={other.token}").status_code == 200
    assert first.get("/api/zoo.json").status_code == 200
    assert second.get("/api/zoo.json").status_code == 200
    for foreign in ("a@b=1", "a[0]=x; b", "=;;=", '"x'):
        names = [cookie.name for cookie in first.cookies.jar]
        own = next(f"{n}={access.token}" for n in names if n.endswith("8000"))
        headers = {"cookie": f"{foreign}; {own}"}
        client = TestClient(create_app(kept_zoo, access), base_url="http://10.0.0.7:8000")
        assert client.get("/api/zoo.json", headers=headers).status_code == 200
