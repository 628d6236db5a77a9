"""`vitarium study`, as a user types it."""


def test_sentences_are_printed_and_page_and_figures_written(vitarium, grown_zoo, tmp_path):
    out, figures = tmp_path / "page.html", tmp_path / "figures"
    status, said, err = vitarium(
        "study", "diversity", grown_zoo.path, "--out", out, "--figures", figures,
        "--set", "draws=50", "--set", "measure_missing=false", "--set", 'embeddings=["pca"]', "--where", "stage = 'finetune'",
    )  # fmt: skip
    assert status == 0, err
    assert said.startswith("finetune: 4 models reach a mean test accuracy of ")
    assert "**" not in said
    count = len(list(figures.iterdir()))
    assert err == f"page written to {out}, {count} figures to {figures}\n"
    assert (figures / "finetune-accuracy-over-epochs.svg").read_text().startswith("<svg")
    assert out.read_text().startswith("<!doctype html>")


def test_wrong_settings_are_one_line(vitarium, grown_zoo, tmp_path):
    status, _, err = vitarium(
        "study", "diversity", grown_zoo.path, "--out", tmp_path / "x.html", "--set", "level=2"
    )
    assert status == 2
    assert "level" in err
    assert not (tmp_path / "x.html").exists()


def test_soups_are_studied_by_a_command(vitarium, grown_zoo, tmp_path):
    out = tmp_path / "soups.html"
    status, said, err = vitarium(
        "study", "soups", grown_zoo.path, "--out", out, "--set", 'methods=["uniform_soup"]',
        "--set", "points=3", "--set", "draws=20", "--images", "40",
    )  # fmt: skip
    assert status == 0, err
    assert said.startswith("finetune: The uniform soup of one parent's children differs from ")
    assert err == f"page written to {out}\n"
    status, _, err = vitarium(
        "study", "soups", grown_zoo.path, "--where", "stage = 'pretrain'", "--out", out,
        "--set", 'methods=["uniform_soup"]',
    )  # fmt: skip
    assert status == 2
    assert "no model has two finished children" in err
