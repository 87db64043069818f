"""Ports of servers that tests start are nobody else's by the time they are listened at."""

from socket import create_server

from jobs.lab.free_ports import PORTS, TWIN, WITH_TWINS, _is_free, free_port, free_ports_with_twins

LOWEST_OF_CONNECTIONS = 32_768  # that Linux gives to outgoing ones, unless it is told otherwise


def test_no_port_is_given_twice_nor_to_a_connection() -> None:
    alone, low = [free_port() for _ in range(20)], free_ports_with_twins(5)
    taken = [*alone, *low, *(port + TWIN for port in low)]
    assert len(set(taken)) == len(taken)
    assert max(PORTS.stop, WITH_TWINS.stop + TWIN) <= LOWEST_OF_CONNECTIONS


def test_a_port_somebody_listens_at_is_not_given() -> None:
    with create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not _is_free(port)
