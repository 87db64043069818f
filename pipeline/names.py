"""Names of files: bytes to the operating system, text to everybody else.

The bytes need not be UTF-8. Python carries such a name as text with lone surrogates (PEP 383), and
so does vidray, up to where it is shown or stored.
"""


def as_text(name: str) -> str:
    """The name as messages and tables can hold it: what is no UTF-8 is written out, as \\xff."""
    try:
        return as_bytes(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that no file's name can hold
        return name.encode("utf-8", "backslashreplace").decode()


def as_bytes(name: str) -> bytes:
    """The name as the operating system has it. UnicodeEncodeError if no file can be called so."""
    return name.encode("utf-8", "surrogateescape")


def from_bytes(name: bytes) -> str:
    """The way back."""
    return name.decode("utf-8", "surrogateescape")
