"""`viptt address`: the address of the repository."""

from __future__ import annotations

from viptt_core.cli.command import add_command


def add_address_command(commands) -> None:
    """Add the command to the subparsers of `viptt`."""
    address = add_command(
        commands,
        "address",
        _address,
        "print the address of the repository and the files that carry another, or set "
        "it everywhere: links, citation, package, first cells of the notebooks",
        "viptt address https://github.com/NAME/viptt-net",
    )
    address.add_argument("url", nargs="?", metavar="URL", help="address to set (default: only print)")
    address.add_argument("--check", action="store_true", help="fail when nobody has set it, or a file carries another")


def _address(options) -> None:
    from viptt_core.book.address import CHECKOUT, disagreements, is_placeholder, read_address, write_address
    from viptt_core.errors import DataError

    if options.url:
        for path in write_address(options.url):
            print(f"set in {path.relative_to(CHECKOUT)}")
    print(read_address())
    others = disagreements()
    for path, found in others.items():
        print(f"{path.relative_to(CHECKOUT)} has {found}")
    wrong = ["it is a placeholder"] * is_placeholder() + [f"{len(others)} files have another"] * bool(others)
    if options.check and wrong:
        raise DataError(
            f"the address of the repository is not set: {' and '.join(wrong)}.", remedy="Run: viptt address URL"
        )
