"""Faults that the tests of XSM must notice."""

from __future__ import annotations

from typing import Final

from lab.errors import ConfigError
from lab.flights.steps import StepContext
from testcases._flask import Flask

# From now on xl is a toolstack that forgets which label a guest was to have.
_FORGETFUL_XL: Final = r"""
mv /usr/bin/xl /usr/bin/xl-true
cat >/usr/bin/xl <<'END'
#!/bin/sh
[ "$1" = create ] && sed -i /seclabel/d "$2"
exec xl-true "$@"
END
chmod 755 /usr/bin/xl
"""

# Nobody waits for this guest: only the denial shows it.
_DENIED_GUEST: Final = r"""
cat >/run/lab/denied.cfg <<'END'
name = "denied"
type = "pv"
memory = 32
kernel = "/lab/media/none"
seclabel = "system_u:system_r:prot_domU_t"
END
flask-set-bool prot_doms_locked 1
xl create -p /run/lab/denied.cfg
flask-set-bool prot_doms_locked 0
rm -f /run/lab/denied.cfg
"""


def forget_to_enforce(ctx: StepContext) -> None:
    """FLASK only logs what it should deny."""
    Flask(ctx.host()).enforce(on=False)


def loosen_policy(ctx: StepContext) -> None:
    """The job's policy gets the hole in its loosened.te."""
    policy = ctx.xsm_policy(ctx.runvars.require("xsm_policy"))
    if policy.loosened is None:
        raise ConfigError(f"fault xsm-loosened: policy {policy.test.name} has no loosened.te")
    Flask(ctx.host()).load(policy.loosened)


def lose_labels(ctx: StepContext) -> None:
    """The toolstack forgets the labels of guests it creates."""
    ctx.host().shell.script(_FORGETFUL_XL)


def provoke_denial(ctx: StepContext) -> None:
    """Something is denied, and no step sees it."""
    ctx.host().shell.script(_DENIED_GUEST)
