"""``encode``: says what it did and what is missing."""

from __future__ import annotations

from scm_media.cli import main

SHORT = ("logger=none", "feature_extractor=null", "data.num=40", "autoencoder.num_samples=32")


def test_latents_are_written_once_and_counted(tmp_path, capsys):
    run = f"run_dir={tmp_path}"
    assert main(["encode", "image/tiny", *SHORT, run]) == 1
    assert "train stage=autoencoder first" in capsys.readouterr().err
    assert main(["train", "image/tiny", *SHORT, run, "stage=autoencoder"]) == 0
    capsys.readouterr()
    assert main(["encode", "image/tiny", *SHORT, run]) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path}/latents: 41 examples encoded now, 1 variants each" in said
    assert "latents a second" in said
    assert main(["encode", "image/tiny", *SHORT, run]) == 0
    assert "0 examples encoded now" in capsys.readouterr().out


def test_unknown_keys_of_the_cache_are_refused(tmp_path, capsys):
    for override, said in (
        ("latents.dtype=int8", "latents.dtype must be one of float16, float32"),
        ("latents.variants=0", "latents.variants must be at least 1"),
    ):
        assert main(["encode", "image/tiny", override, f"run_dir={tmp_path}"]) == 1
        assert said in capsys.readouterr().err
