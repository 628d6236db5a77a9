"""What the page downloads is the model, bit for bit, and nothing of it stays on the server."""

import io
import tempfile
import zipfile
from multiprocessing import util
from pathlib import Path

import pytest
import timm
import torch
from playwright.sync_api import expect
from safetensors import safe_open
from safetensors.torch import load, load_file

from explorer.conftest import files_served, served
from vitarium import Blueprint, merge, plan
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.explorer import downloads
from vitarium.explorer.security import Access
from vitarium.formats.export import export


@pytest.fixture
def model(grown_zoo):
    return next(model for model in grown_zoo if model.children)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary folders."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    util.get_temp_dir()  # multiprocessing's own, which stays as long as the process, is elsewhere
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_download_is_what_the_exporter_writes(grown_zoo, model, tmp_path):
    for exporter in ("timm", "safetensors"):
        for epoch, number in (("last", 2), ("0", 0)):
            folder = tmp_path / f"{exporter}-{epoch}"
            folder.mkdir()
            written = downloads.download(grown_zoo.path, model.id, epoch, exporter, str(folder))
            out = tmp_path / f"exported-{exporter}-{epoch}"
            exported = export(grown_zoo, exporter, out=out, models=[f"{model.id}@{number}"])[0]
            path, name = Path(written["path"]), f"{model.id}-epoch-{number:04d}"
            if exporter == "safetensors":
                assert written["name"] == f"{name}.safetensors"
                assert path.read_bytes() == exported.read_bytes()
                continue
            assert written["name"] == f"{name}.zip"
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
                contents = {entry: archive.read(entry) for entry in archive.namelist()}
            assert contents == {
                f"{name}/{file.name}": file.read_bytes() for file in exported.iterdir()
            }


@pytest.mark.slow
def test_the_server_sends_it_as_an_attachment(client_of, grown_zoo, model, tmp_path, temporary):
    with client_of(grown_zoo) as client:
        response = client.get(f"/api/models/{model.id[:8]}/download/safetensors?epoch=1")
        name = f"{model.id}-epoch-0001.safetensors"
        assert response.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert "content-encoding" not in response.headers  # gzip makes weights no smaller
        assert int(response.headers["content-length"]) == len(response.content)
        tensors, weights = load(response.content), grown_zoo.state_dict(model.id, 1)
        assert tensors.keys() == weights.keys()
        assert all(torch.equal(tensors[name], weights[name]) for name in weights)
        response = client.get(f"/api/models/{model.id}/download/timm")
        zipfile.ZipFile(io.BytesIO(response.content)).extractall(tmp_path)
        folder = tmp_path / f"{model.id}-epoch-0002"
        assert {*load_file(folder / "model.safetensors")} == {*weights}
        images = torch.rand(2, 1, 8, 8)
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        with torch.inference_mode():
            assert torch.equal(loaded(images), model.load()(images))
        assert not [*temporary.iterdir()]
        again = client.get(f"/api/models/{model.id}/download/timm")  # nothing of it is kept
        assert again.status_code == 200


@pytest.mark.slow
def test_what_cannot_be_downloaded_is_said(client_of, grown_zoo, model, temporary):
    with client_of(grown_zoo) as client:
        address = f"/api/models/{model.id}/download"
        refused = client.get(f"{address}/timm?epoch=9")
        assert (refused.status_code, "no weights of epoch 9" in refused.json()["error"]) == (
            400,
            True,
        )
        assert client.get(f"{address}/timm?epoch=-1").status_code == 422
        assert client.get(f"{address}/../../x").status_code == 404
        assert client.get(f"{address}/onnx").status_code == 422
        assert client.get("/api/models/zzz/download/timm").status_code == 404
        assert not [*temporary.iterdir()]


def test_what_is_too_large_is_not_written(grown_zoo, model, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_BYTES", 100)
    with pytest.raises(NotApplicable, match="more than 100 B are not downloaded"):
        downloads.download(grown_zoo.path, model.id, "last", "safetensors", str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_a_format_without_a_place_for_a_model_says_so(grown_zoo, model, tmp_path):
    ensemble = merge(grown_zoo, "uniform_soup", models=model.children, heads="ensemble")
    with pytest.raises(InvalidInput, match="its head is 'ensemble'"):
        downloads.download(grown_zoo.path, ensemble.id, "last", "timm", str(tmp_path))
    written = downloads.download(grown_zoo.path, ensemble.id, "last", "safetensors", str(tmp_path))
    with safe_open(written["path"], "pt") as file:
        assert "vitarium" in file.metadata()


@pytest.mark.slow
def test_a_models_page_has_downloads_and_its_blueprint(browser, grown_zoo, model, tmp_path):
    with served(grown_zoo, Access("127.0.0.1")) as address:
        page = browser.new_page()
        page.goto(f"{address}#model={model.id}")
        page.get_by_label("epoch to download").select_option("1")
        with page.expect_download(timeout=180_000) as download:
            page.get_by_role("button", name="safetensors").click()
        assert download.value.suggested_filename == f"{model.id}-epoch-0001.safetensors"
        tensors, weights = load_file(download.value.path()), grown_zoo.state_dict(model.id, 1)
        assert all(torch.equal(tensors[name], weights[name]) for name in weights)
        page.get_by_text("How to make it again").click()
        with page.expect_download(timeout=180_000) as download:
            page.get_by_role("button", name="Save", exact=True).click()
        blueprint = tmp_path / download.value.suggested_filename
        download.value.save_as(blueprint)
        assert [spec.id for spec in plan(Blueprint.load(blueprint)).models] == [model.id]
        ensemble = merge(grown_zoo, "uniform_soup", models=model.children, heads="ensemble")
        page.goto(f"{address}#model={ensemble.id}")
        page.get_by_role("button", name="timm folder").click()
        expect(page.get_by_role("alert")).to_contain_text("its head is 'ensemble'", timeout=180_000)
        page.get_by_text("How to make it again").click()
        command = page.get_by_label("commands that make it again", exact=True)
        expect(command).to_contain_text("--heads ensemble", timeout=180_000)
        page.close()


@pytest.mark.slow
def test_a_site_has_blueprints_and_no_weights(browser, grown_zoo, model, tmp_path):
    out = tmp_path / "site"
    export(grown_zoo, "site", out=out)
    assert not [path for path in out.rglob("*") if path.suffix in (".zip", ".safetensors")]
    with files_served(tmp_path / "site") as address:
        page = browser.new_page()
        page.goto(f"{address}#model={model.id}")
        page.get_by_text("How to make it again").click()
        expect(page.get_by_label("blueprint", exact=True)).to_contain_text("stages:")
        expect(page.get_by_text("Download")).to_have_count(0)
        assert str(grown_zoo.path.parent) not in page.content()
        page.close()
