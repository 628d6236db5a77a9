"""The process of the explorer starts in any folder of temporary files."""

import socket
import sys
import tempfile
from multiprocessing import connection, util

import pytest

from vitarium.explorer.computation import start_method


@pytest.mark.skipif(sys.platform != "linux", reason="others are never forked")
@pytest.mark.parametrize(("length", "method"), [(75, "forkserver"), (76, "spawn")])
def test_a_process_is_forked_where_the_name_of_the_socket_fits(monkeypatch, length, method):
    folder = "/" + "d" * (length - 1)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    monkeypatch.setattr(util, "get_temp_dir", lambda: f"{folder}/pymp-12345678")
    assert start_method() == method
    reason = "No such file" if method == "forkserver" else "too long"
    with socket.socket(socket.AF_UNIX) as listener, pytest.raises(OSError, match=reason):
        listener.bind(connection.arbitrary_address("AF_UNIX"))
