"""Keys, values and the command line."""

import sys

import pytest

from recbole_stream.errors import InputError
from recbole_stream.host import configuration as conf
from recbole_stream.host.keys import RULES, view_names


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (conf.integer(minimum=2), [2, 256], [1, 2.0, True, "2", None]),
        (conf.integer(minimum=1, maximum=4), [1, 4], [0, 5]),
        (conf.number(minimum=0, maximum=1), [0, 0.5, 1], [-0.1, 1.1, float("nan"), False, "0.5"]),
        (conf.number(above=0), [1e-9, 3], [0, -1, float("inf")]),
        (conf.one_of("a", "b"), ["a"], ["c", None, 0]),
        (conf.boolean(), [True, False], [0, 1, "True"]),
        (conf.list_of_strings(), [[], ["title"]], ["title", [1], None, ("title",)]),
        (conf.optional(conf.integer(minimum=1)), [None, 1], [0, "None"]),
    ],
)
def test_rule_accepts_exactly_what_it_says(rule, good, bad):
    assert [rule.accepts(value) for value in good] == [True] * len(good)
    assert [rule.accepts(value) for value in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (conf.integer(minimum=2), "a whole number of at least 2"),
        (conf.integer(), "a whole number"),
        (conf.integer(maximum=3), "a whole number of at most 3"),
        (conf.number(minimum=0, maximum=1), "a number between 0 and 1"),
        (conf.number(above=0), "a number above 0"),
        (conf.number(above=0, maximum=1), "a number above 0 and at most 1"),
        (conf.one_of("a", "b"), "one of 'a', 'b'"),
        (conf.optional(conf.boolean()), "True or False, or ~"),
    ],
)
def test_value_message_names_key_value_and_rule(rule, words):
    with pytest.raises(InputError) as caught:
        conf.check_values({"the_key": "never this"}, {"the_key": rule})
    assert str(caught.value) == f"the_key is 'never this', but must be {words}."


def test_values_without_a_rule_and_rules_without_a_value_pass():
    conf.check_values({"free": object()}, {"absent": conf.boolean()})


def test_misspelt_key_gets_the_nearest_one():
    with pytest.raises(InputError, match="^Unknown key 'learning_rat': did you mean 'learning_rate'\\?$"):
        conf.check_keys({"learning_rat": 1}, {"learning_rate", "epochs"})


def test_key_like_no_other_points_to_the_yaml():
    with pytest.raises(InputError, match="properties/model/TIGER.yaml"):
        conf.check_keys(["zzzzz"], {"learning_rate", "epochs"}, "TIGER")


def test_key_of_our_models_alone_is_named_as_such():
    with pytest.raises(
        InputError, match="^Unknown key 'beam_size': it belongs to STREAMRec and TIGER, not to SASRec; leave"
    ):
        conf.check_keys({"beam_size": 9}, conf.known_keys("SASRec"), "SASRec")


def test_known_keys_are_those_of_recbole_and_of_the_model():
    sasrec = conf.known_keys("SASRec")
    # overall.yaml, an argument list, sample.yaml, SASRec.yaml, a launcher's key, one of ours
    expected = {"worker", "valid_metric", "kg_reverse_r", "n_heads", "world_size", "preset"}
    assert expected <= sasrec
    assert "mlp_hidden_size" not in sasrec  # NeuMF's
    conf.check_keys(["MAX_ITEM_LIST_LENGTH", "n_layers"], sasrec)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-3", 0.001),
        ("-0.5", -0.5),
        ("true", True),
        ("False", False),
        ("None", None),
        ("~", None),
        ("", ""),
        ("SASRec,TIGER", "SASRec,TIGER"),
        ("[5,10]", [5, 10]),
        ("['title','brand']", ["title", "brand"]),
        ("{'LS': 'valid_and_test'}", {"LS": "valid_and_test"}),
        ("{'split':{'LS':'valid_and_test'},'order':'TO'}", {"split": {"LS": "valid_and_test"}, "order": "TO"}),
        ("[5,inf)", "[5,inf)"),
        ("a=b=c", "a=b=c"),
        ("a: b", "a: b"),
        ("2020-01-01", "2020-01-01"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
    ],
)
def test_command_line_value(text, value):
    for arguments in ([f"--key={text}"], ["--key", text]):
        parsed = conf.parse_command_line(arguments)
        assert parsed == {"key": value}
        assert type(parsed["key"]) is type(value)


def test_command_line_flags_and_order():
    parsed = conf.parse_command_line(["--debug", "--model=TIGER", "--lr", "-1", "--last"])
    assert parsed == {"debug": True, "model": "TIGER", "lr": -1, "last": True}


@pytest.mark.parametrize("arguments", [["TIGER"], ["--a=1", "TIGER"], ["-m=TIGER"], ["--"], ["--a", "1", "2"]])
def test_command_line_rejects_what_is_no_option(arguments):
    with pytest.raises(InputError, match="is not an option: write --key=value"):
        conf.parse_command_line(arguments)


def test_command_line_rejects_two_values_for_one_key():
    assert conf.parse_command_line(["--a=1", "--a=1"]) == {"a": 1}
    with pytest.raises(InputError, match="--a is given twice, as 1 and 2"):
        conf.parse_command_line(["--a=1", "--a", "2"])


def test_quiet_argv_hides_the_command_line_even_after_an_error(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py", "--model=TIGER"])
    with pytest.raises(RuntimeError), conf.quiet_argv():
        assert sys.argv == ["run.py"]
        raise RuntimeError
    assert sys.argv == ["run.py", "--model=TIGER"]


def test_presets(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    overlay = tmp_path / "model" / "TIGER-paper.yaml"
    overlay.write_text("beam_size: 7")
    monkeypatch.setattr(conf, "properties_dir", lambda: tmp_path)
    assert conf.preset_file("TIGER", "paper") == overlay
    assert conf.preset_file("TIGER", "default") is None
    with pytest.raises(InputError, match="^preset is 'papr', but TIGER has only: default, paper.$"):
        conf.preset_file("TIGER", "papr")


def test_views_off_understands_the_old_names_of_views():
    assert view_names(["memory", "text", "seen"]) == ("transitions", "text", "repeats")
    assert RULES["views_off"].accepts(["generation", "state"])
    assert not RULES["views_off"].accepts(["generation", "state", "memory", "content", "seen"])  # all of them
    assert not RULES["views_off"].accepts(["memories"])
