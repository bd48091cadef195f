"""Every error is a sentence with a hint, is caught by the built-in, and crosses processes."""

import copy
import pickle

import pytest

from llava_video import errors
from llava_video.errors import (
    AccessRefusedError,
    BackendMissingError,
    BudgetError,
    CapacityError,
    ChangedFileError,
    CheckpointError,
    ConfigError,
    DecodeError,
    ExampleError,
    LedgerBusyError,
    LedgerError,
    LlavaVideoError,
    ManifestError,
    ServerBusyError,
    ServerClosedError,
    ServerError,
    ServerRefusedError,
    SinkError,
    SourceError,
)

BUILT_IN = {
    AccessRefusedError: OSError,
    BackendMissingError: ImportError,
    BudgetError: ValueError,
    CapacityError: RuntimeError,
    ChangedFileError: OSError,
    CheckpointError: RuntimeError,
    ConfigError: ValueError,
    DecodeError: RuntimeError,
    ExampleError: ValueError,
    LedgerBusyError: OSError,
    LedgerError: OSError,
    ManifestError: ValueError,
    ServerBusyError: ConnectionError,
    ServerClosedError: ConnectionError,
    ServerError: ConnectionError,
    ServerRefusedError: ConnectionError,
    SinkError: RuntimeError,
    SourceError: OSError,
}
MESSAGE = "60 frames need 11820 tokens, the budget is 8192."
HINT = "pool_stride=3 needs 4920."


def test_the_table_of_this_test_is_complete():
    classes = {c for c in vars(errors).values() if isinstance(c, type)}
    assert classes == {*BUILT_IN, LlavaVideoError}


@pytest.mark.parametrize("cls", [*BUILT_IN, LlavaVideoError])
def test_message_and_hint(cls: type[LlavaVideoError]):
    error = cls(MESSAGE, HINT)
    assert (error.message, error.hint) == (MESSAGE, HINT)
    assert str(error) == f"{MESSAGE}  hint: {HINT}"
    assert str(cls(MESSAGE)) == MESSAGE


@pytest.mark.parametrize(("cls", "built_in"), BUILT_IN.items())
def test_a_stranger_catches_the_built_in(cls: type[LlavaVideoError], built_in: type[Exception]):
    with pytest.raises(built_in, match="hint: pool_stride=3"):
        raise cls(MESSAGE, HINT)


ERRORS = [
    *(cls(MESSAGE, HINT) for cls in (*BUILT_IN, LlavaVideoError)),
    DecodeError(MESSAGE, HINT, pts_s=1.5),
    ExampleError(MESSAGE, HINT, kind="marks"),
    ManifestError(MESSAGE, HINT, problems=("line 3: no video.",)),
    BudgetError(MESSAGE, HINT, need_tokens=11820, have_tokens=8192),
    BudgetError(MESSAGE, HINT, need_bytes=7 * 2**30, have_bytes=6 * 2**30),
]


@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, pickle])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_and_copying(error: LlavaVideoError, through: object):
    back = pickle.loads(pickle.dumps(error)) if through is pickle else through(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert back.args == error.args


def test_numbers_are_carried():
    assert DecodeError(MESSAGE, HINT, pts_s=1.5).pts_s == 1.5
    assert DecodeError(MESSAGE).pts_s is None
    error = BudgetError(MESSAGE, HINT, need_tokens=11820, have_tokens=8192)
    assert (error.need_tokens, error.have_tokens) == (11820, 8192)
    assert (error.need_bytes, error.have_bytes) == (0, 0)
    error = BudgetError(MESSAGE, HINT, need_bytes=7, have_bytes=6)
    assert (error.need_tokens, error.need_bytes, error.have_bytes) == (0, 7, 6)


def test_source_error_has_no_errno():
    # OSError reads two arguments as (errno, text); handlers that compare errno would be misled.
    error = pickle.loads(pickle.dumps(SourceError(MESSAGE, HINT)))
    assert (error.errno, error.strerror, error.filename) == (None, None, None)
