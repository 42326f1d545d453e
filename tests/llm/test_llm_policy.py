"""A tiny random language model in a folder: checked, loaded, asked, and turned into rankings."""

import importlib.util
import json

import pytest
import torch

from recbole_stream.errors import InputError
from recbole_stream.llm.policy import as_input, check_language_model, complete, load_policy
from recbole_stream.llm.prompt import history_prompt, queries_of
from recbole_stream.llm.recr1 import RecR1Model, RecR1Options
from recbole_stream.llm.retrieval import BM25
from tests.cases import TITLES
from tests.llm.tiny import save_language_model

TEXTS = list(TITLES.values())
OPTIONS = RecR1Options("query", 4, 5, 6)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "chat"])
def policy(tmp_path_factory, request):
    return load_policy(save_language_model(tmp_path_factory.mktemp("lm"), TEXTS, request.param))


def test_a_prompt_completes_the_same_alone_and_among_longer_ones(policy):
    model, tokenizer = policy
    prompts = [history_prompt(TEXTS[:n], "query") for n in (1, 6, 3)]
    together = complete(model.eval(), tokenizer, prompts, 5)
    assert together == [complete(model, tokenizer, [prompt], 5)[0] for prompt in prompts]
    assert any(together) and all(len(text.split()) <= 5 for text in together)


def test_scores_are_the_places_of_the_completions_query(policy):
    retrieval = BM25(TEXTS)
    model = RecR1Model(*policy, TEXTS, retrieval, OPTIONS).eval()
    histories = torch.tensor([[3, 1, 4], [2, 0, 0]])
    assert model.prompts(histories)[1] == history_prompt([TEXTS[1]], "query")
    scores = model(histories)
    assert scores.shape == (2, 31) and (scores[:, 0] == -torch.inf).all()
    for row, prompt in zip(scores, model.prompts(histories)):
        queries = queries_of(complete(model.policy, model.tokenizer, [prompt], 5)[0], "query")
        found = int((retrieval.scores(queries) > 0).sum()) if queries else 0
        assert row[row > -torch.inf].sort(descending=True).values.tolist() == [-place for place in range(1, found + 1)]
    assert (model.places("") == 0).all()
    assert model.places("<think>?</think><answer>number 7</answer>")[7] == 1


def test_a_chat_template_makes_a_message_of_the_prompt(policy):
    _, tokenizer = policy
    assert as_input("hi", tokenizer) == ([{"role": "user", "content": "hi"}] if tokenizer.chat_template else "hi")


def test_a_prompt_that_does_not_fit_is_refused(tmp_path):
    policy = load_policy(save_language_model(tmp_path, TEXTS, positions=64))
    with pytest.raises(InputError, match="reads 64 tokens, but .* lower MAX_ITEM_LIST_LENGTH"):
        RecR1Model(*policy, TEXTS, BM25(TEXTS), OPTIONS)


def test_what_is_no_language_model_is_refused(tmp_path):
    for path, message in ((None, "llm_path is not set"), (str(tmp_path), "holds no config.json")):
        with pytest.raises(InputError, match=message):
            check_language_model(path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(InputError, match="transformers cannot load"):
        load_policy(str(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="TRL is installed")
def test_without_trl_the_install_command_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"RecR1 needs TRL: run `pip install .*\[llm\]"):
        check_language_model(str(tmp_path))
