# SPDX-License-Identifier: Apache-2.0
"""Where kernels come from, and that half of one is never taken for a whole."""

from __future__ import annotations

import pathlib

import pytest

from tests.kernels import fetch

DEBIAN = "mirror://deb/debian/ bookworm main Debian\nmirror://deb/debian-security/ bookworm-security main Debian\n"


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> list[str]:
    """A list whose first element is what `apt-get indextargets` prints; no template of Debian's archive."""
    printed = [""]
    monkeypatch.delenv("BYPATH_DEBIAN_MIRROR", raising=False)
    monkeypatch.setattr(fetch, "run", lambda _argv: printed[0])
    monkeypatch.setattr(fetch, "TEMPLATE", tmp_path / "Debian.info")
    return printed


def test_the_mirror_is_the_one_apt_is_configured_with(apt: list[str]) -> None:
    apt[0] = "mirror://vendor/debian/ bookworm main Vendor\n" + DEBIAN
    assert fetch.mirrors() == ("mirror://deb/debian/", "mirror://deb/debian-security/")


def test_a_debian_that_has_no_lists_yet_still_names_its_mirror(apt: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "is_debian", lambda: True)
    apt[0] = DEBIAN.replace(" Debian", " $(ORIGIN)")
    assert fetch.mirrors() == ("mirror://deb/debian/", "mirror://deb/debian-security/")


def test_an_ubuntu_takes_the_archive_that_its_own_template_names(apt: list[str]) -> None:
    apt[0] = "mirror://ubuntu/ubuntu/ noble main Ubuntu\n"
    fetch.TEMPLATE.write_text("Suite: x\nBaseURI: mirror://deb/debian/\nBaseURI: mirror://security/\n")
    assert fetch.mirrors() == ("mirror://deb/debian/", "")


def test_a_machine_without_any_mirror_is_told_what_to_type(apt: list[str]) -> None:
    with pytest.raises(fetch.FetchError, match="type: apt-get install python-apt-common"):
        fetch.mirrors()


def test_a_missing_keyring_is_answered_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(fetch, "KEYRING", tmp_path / "none.gpg")
    with pytest.raises(fetch.FetchError, match="type: apt-get install debian-archive-keyring"):
        fetch.Apt(tmp_path / "scratch", ("bookworm",))


def test_an_unpacking_that_stops_half_way_leaves_no_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    def half(argv: list[str]) -> str:
        tree = pathlib.Path(argv[-1])
        if argv[0] == "depmod":
            raise fetch.FetchError("stopped")
        (tree / "boot").mkdir(parents=True)
        (tree / "boot/vmlinuz-6.1.0").touch()
        (tree / "lib/modules/6.1.0").mkdir(parents=True)
        return ""

    monkeypatch.setattr(fetch, "run", half)
    with pytest.raises(fetch.FetchError, match="stopped"):
        fetch.unpack([pathlib.Path("a.deb")], tmp_path / "6.1.0")
    assert list(tmp_path.iterdir()) == []


def test_versions_compare_as_debian_does() -> None:
    assert [fetch.compare("6.1.9-1", "6.1.10-1"), fetch.compare("6.1~rc1", "6.1"), fetch.compare("1", "1")] == [
        -1,
        -1,
        0,
    ]


def test_an_unknown_series_is_refused_by_name() -> None:
    with pytest.raises(fetch.FetchError, match=r"no kernel series '5\.4'; known: 6\.1, 6\.12, 7\.3"):
        fetch.kernel("5.4", print)
