"""How commands end."""

import pytest

from helpers.errors import BadInput, Problem, exit_cleanly


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Problem("too long: shorten it."), "too long: shorten it."),
        (BadInput("device must be auto."), "device must be auto."),
        (OSError(28, "No space left on device", "reports/x"), "reports/x: No space left on device."),
        (FileNotFoundError("nothing here"), "nothing here"),
    ],
)
def test_what_can_be_expected_is_one_line(error, says):
    with pytest.raises(SystemExit) as caught, exit_cleanly():
        raise error
    assert caught.value.code == says  # Python prints it to stderr and exits with 1


def test_what_follows_is_said_too(capsys):
    with pytest.raises(SystemExit) as caught, exit_cleanly("Stopped.", after="All is as it was."):
        raise Problem("No.")
    assert caught.value.code == "No.\nAll is as it was."
    with pytest.raises(SystemExit) as caught, exit_cleanly("Stopped.", after="All is as it was."):
        raise KeyboardInterrupt
    assert caught.value.code == 130 and capsys.readouterr().err == "\nStopped.\nAll is as it was.\n"


@pytest.mark.parametrize("error", [KeyError, ValueError, RuntimeError])
def test_a_mistake_of_the_programmer_is_not_hidden(error):
    with pytest.raises(error), exit_cleanly():
        raise error("x")
