"""Exchanging expressions inside functions."""

from recbole_stream.host.repairs.edit import edit


def greeting(name, ending="!"):
    return "Hello " + name + ending


def farewell(name):
    return "Bye " + name


def test_edits_exchange_expressions_in_place_and_add_up():
    alias = greeting
    edit(greeting, {'"Hello "': '"Bye "'})
    edit(greeting, {"name +": "name.upper() +"})
    assert alias("you") == "Bye YOU!"


def test_a_function_already_mended_is_left_alone_with_a_warning(caplog):
    edit(farewell, {"no such text": "nothing"})
    assert "farewell of this RecBole is not that of 1.2.1 and stays unrepaired" in caplog.text
    assert farewell("you") == "Bye you"
