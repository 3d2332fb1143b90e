# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import sys

import click

from cli.bandwidth import bandwidth
from cli.sockmap import sockmap
from cni.errors import CniError


@click.group(
    help="The state of this node's pods, and what an operator may change of it.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def main() -> None:
    pass


main.add_command(bandwidth)
main.add_command(sockmap)


def run() -> None:
    """Errors are one sentence on stderr and status 1; what click finds wrong with the arguments is status 2."""
    try:
        main(prog_name="bypath")
    except CniError as error:
        reason = error.msg
    except PermissionError as error:
        if not os.geteuid():
            raise
        reason = f"{error.strerror}: bypath reads and writes BPF maps; run it as root"
    click.echo(f"bypath: {reason}", err=True)
    sys.exit(1)


run()
