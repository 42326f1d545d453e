"""run.log holds what was said during its run, and nothing else."""

import logging

from recbole_stream.host.run.log import log_into, log_of_its_own


def test_each_run_has_the_lines_of_its_time(tmp_path):
    first, second = (tmp_path / name / "run.log" for name in ("first", "second"))
    for file in (first, second):
        file.parent.mkdir()
    logging.getLogger().warning("before")
    with log_of_its_own():
        log_into(first)
        log_into(first)  # the second model of the run
        logging.getLogger().warning("of the first")
    logging.getLogger().warning("between")
    with log_of_its_own():
        log_into(first)
        log_into(second)  # a run that was cut short ends no log
        logging.getLogger().warning("of the second")
    logging.getLogger().warning("after")
    assert [line.split("WARNING ")[1] for line in first.read_text().splitlines()] == ["of the first"]
    assert [line.split("WARNING ")[1] for line in second.read_text().splitlines()] == ["of the second"]


def test_a_folder_that_is_gone_troubles_nobody(tmp_path):
    file = tmp_path / "run" / "run.log"
    file.parent.mkdir()
    with log_of_its_own():
        log_into(file)
    file.unlink()
    logging.shutdown(
        logging._handlerList[:]
    )  # as a web server does that sets up its own log: a closed file opens again
    logging.getLogger().warning("later")
    assert not file.exists()
