# SPDX-License-Identifier: Apache-2.0
"""A pod, and one chained plugin that is asked whether all is as its ADD left it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.executable import Cni, CniFailure, Json


class Chained:
    """Subclasses say what the plugin's configuration is for this pod."""

    cni: Cni
    name: str
    netns: str

    def conf(self, **keys: Any) -> Json:
        raise NotImplementedError

    def check(self, **keys: Any) -> None:
        self.cni.check(self.conf(**keys), self.name, self.netns)

    def fault(self, **keys: Any) -> str:
        """What CHECK finds, which must be something."""
        with pytest.raises(CniFailure) as caught:
            self.check(**keys)
        assert caught.value.code == 103
        return caught.value.msg
