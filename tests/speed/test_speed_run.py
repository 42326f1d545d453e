"""Every benchmark runs on tiny sizes, reports what it promises, and compares sides that give equal results."""

import json

import pytest
import torch

from speed import gpu, ranking, stages, tokenizer, training
from speed.__main__ import main

COMMON = {"benchmark", "ratio", "median_seconds", "seconds", "sizes", "hardware", "date", "command"}
FIGURES = {
    "training": {"ratio_tokens", "ratio_item", "ratio_default", "share_of_peak_tokens", "share_of_peak_item"},
    "ranking": {"ratio_same_10", "ratio_default_tiger_12", "ratio_default_streamrec_12", "same_top10_10"},
    "recommending": {"histories_per_second_ours_tiger", "ours_deliberation_over_full_sort_topk"},
    "baselines": {"recbole_over_ours_SASRec", "recbole_over_ours_Caser"},
    "exact": {"share_of_users_with_exact_top10_by_12_beams"},
    "growth": {"trie_bytes_per_item_200", "trie_bytes_per_item_2000"},
    "rollouts": {"steps_per_second_t5", "steps_per_second_ours", "ratio_shared_encoder"},
    "collection": {"samples_per_second_collection", "samples_per_second_epoch"},
    "tokenizer": {"rq_kmeans_seconds", "rq_vae_seconds", "large_seconds", "large_memory_gib"},
}


@pytest.mark.parametrize("name", FIGURES)
def test_runs_and_reports(name, tmp_path, capsys):
    file = tmp_path / "result.json"
    # no such data set: RecBole's own ml-100k takes its place
    main([name, "--tiny", "--json", str(file), "--data_path", str(tmp_path), "--cache_dir", str(tmp_path)])
    result = json.loads(file.read_text())
    assert COMMON | FIGURES[name] <= result.keys()
    assert result["benchmark"] == name and result["ratio"] > 0
    assert result["hardware"]["torch"] == torch.__version__
    for side, median in result["median_seconds"].items():
        assert min(result["seconds"][side]) <= median <= max(result["seconds"][side])
    assert f"{name}: ratio" in capsys.readouterr().out
    if name == "ranking":
        assert result["same_top10_10"] == result["same_top10_12"] == 1
    if name == "training":
        assert result["loss_difference"] < 1e-5
    if name == "rollouts":
        assert result["largest_score_difference"] < 1e-4
    if name == "tokenizer":
        assert result["distinct_ids_rq_kmeans"] == result["distinct_ids_rq_vae"] == tokenizer.TINY_SIZES.items
        assert result["large_distinct_ids"] == tokenizer.TINY_SIZES.many
        assert result["squared_error_rq_kmeans"] == pytest.approx(result["squared_error_sklearn"], rel=0.1)


def test_gpu_says_that_there_is_none(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        main(["gpu"])
    assert stop.value.code == 3
    assert "no CUDA device" in capsys.readouterr().err


def test_the_epoch_of_the_gpu_benchmark_runs_on_the_cpu():
    times, samples = gpu.stage_1_epoch(gpu.TINY_SIZES, None, "absent", "cpu")
    assert samples == 64 and set(times) == {"float32", "bfloat16"}


def test_weights_of_a_short_training_are_kept(tmp_path):
    arguments = ["exact", "--tiny", "--data_path", str(tmp_path), "--cache_dir", str(tmp_path)]
    main(arguments)
    (file,) = (tmp_path / "speed").iterdir()
    written = file.stat().st_mtime_ns
    main(arguments)
    assert file.stat().st_mtime_ns == written


def test_full_sizes_are_those_of_the_goals():
    assert training.FULL.config.hidden_size == 256 and training.FULL.config.encoder_layers == 4
    assert ranking.FULL.beams == (20, 50) and ranking.FULL.users * ranking.FULL.rounds >= 1000
    assert ranking.FULL.growth_items == (10_000, 1_000_000)
    assert stages.FULL.group == 16 and stages.FULL.similar == 50
    assert (tokenizer.FULL.items, tokenizer.FULL.dimensions, tokenizer.FULL.many) == (12_000, 384, 1_000_000)
